#include "trace.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000

int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * SECOND + now.tv_nsec;
}

void sleep_until(int64_t ns) {
    struct timespec until = {.tv_sec = (time_t)(ns / SECOND), .tv_nsec = (long)(ns % SECOND)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR) continue;
}

int trace_open(const char *path) {
    const char *common = getenv("VNPU_TRACE");
    if (!*path && common) path = common;
    if (!*path) return -1;
    return open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
}

/* One write per event, so that lines of several processes do not mix. */
static void put(int trace, const char *text, size_t length) {
    while (length) {
        ssize_t written = write(trace, text, length);
        if (written < 0 && errno != EINTR) return;
        if (written > 0) text += written, length -= (size_t)written;
    }
}

void trace_event(int trace, const char *name, int64_t ns, const char *fields, ...) {
    if (trace < 0) return;
    char *text, *rest;
    va_list arguments;
    va_start(arguments, fields);
    int length = vasprintf(&rest, fields, arguments);
    va_end(arguments);
    if (length < 0) return;
    length = asprintf(&text, "{\"event\": \"%s\", \"ns\": %lld, \"pid\": %d%s}\n", name,
                      (long long)ns, (int)getpid(), rest);
    free(rest);
    if (length < 0) return;
    put(trace, text, (size_t)length);
    free(text);
}

void trace_tokens(int trace, const int64_t *ns, int64_t count) {
    if (trace < 0) return;
    char *text = malloc((size_t)count * 22 + 64), *end = text;
    end += sprintf(end, "{\"event\": \"tokens\", \"ns\": [");
    for (int64_t i = 0; i < count; i++)
        end += sprintf(end, "%s%lld", i ? ", " : "", (long long)ns[i]);
    end += sprintf(end, "], \"pid\": %d}\n", (int)getpid());
    put(trace, text, (size_t)(end - text));
    free(text);
}

char *json_string(const char *text) {
    char *json = malloc(strlen(text) * 6 + 3), *end = json;
    *end++ = '"';
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            end += sprintf(end, "\\%c", *text);
        else if ((unsigned char)*text < ' ')
            end += sprintf(end, "\\u%04x", *text);
        else
            *end++ = *text;
    }
    *end++ = '"';
    *end = 0;
    return json;
}
