#include "report.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

void log_line(char level, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    printf("%c rkllm: ", level);
    vprintf(format, arguments);
    putchar('\n');
    va_end(arguments);
}

void log_rknn(const char *format, ...) {
    struct timespec now;
    struct tm parts;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &parts);
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "E RKNN: [%02d:%02d:%02d.%03d] ", parts.tm_hour, parts.tm_min, parts.tm_sec,
            (int)(now.tv_nsec / 1000000));
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
}

static void complain(const char *format, va_list arguments) {
    fputs("vnpu: bad input: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
}

int refuse(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    complain(format, arguments);
    va_end(arguments);
    return -1;
}

void reject(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    complain(format, arguments);
    va_end(arguments);
    abort();
}
