#include "script.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "report.h"

#define MAGIC "\nvrknn 1\n"
#define FILE_LIMIT (4 << 20)

typedef struct {
    const char *name;
    size_t offset, room; /* room 0: a number */
    int64_t least, most;
} Key;

#define N(name, least, most) {#name, offsetof(Script, name), 0, least, most}
#define T(name) {#name, offsetof(Script, name), sizeof ((Script *)0)->name, 0, 0}

static const Key keys[] = {
    N(height, 1, 4096),       N(width, 1, 4096),        N(nchw, 0, 1),
    N(tokens, 2, 4096),       N(embedding, 8, 1 << 16), N(outputs, 1, 8),
    N(rank, 2, 4),            N(load_ms, 0, 3600000),   N(run_ms, 0, 3600000),
    N(init_code, -13, 0),     N(mask_code, -13, 0),     N(query_code, -13, 0),
    N(set_code, -13, 0),      N(run_code, -13, 0),      N(get_code, -13, 0),
    N(release_code, -13, 0),  N(crash_in_init, 0, 1),   N(crash_at, 0, INT32_MAX),
    N(hang_at, 0, INT32_MAX), N(fail_at, 0, INT32_MAX), N(short_output, 0, 1),
    T(platform),              T(board),                 T(trace),
};

#define KEYS (sizeof keys / sizeof *keys)

static int set(Script *script, const Key *key, const char *value) {
    char *place = (char *)script + key->offset, *rest;
    if (key->room) {
        if (strlen(value) >= key->room) return refuse("key %s is too long", key->name);
        strcpy(place, value);
        return 0;
    }
    errno = 0;
    long long number = strtoll(value, &rest, 10);
    if (errno || *rest || rest == value || number < key->least || number > key->most)
        return refuse("key %s=%s: expected a number from %lld to %lld", key->name, value,
                      (long long)key->least, (long long)key->most);
    *(int64_t *)(void *)place = number;
    return 0;
}

static int apply(Script *script, char *line) {
    char *value = strchr(line, '=');
    if (!value) return refuse("the line \"%s\" has no key", line);
    *value++ = 0;
    for (size_t i = 0; i < KEYS; i++)
        if (!strcmp(keys[i].name, line)) return set(script, &keys[i], value);
    return refuse("key %s is not known", line);
}

int script_read(Script *script, const char *path) {
    FILE *file = fopen(path, "rbe");
    if (!file) return -1;
    char *content = calloc(1, FILE_LIMIT + 1);
    size_t length = fread(content, 1, FILE_LIMIT, file);
    fclose(file);
    char *at = memmem(content, length, MAGIC, sizeof MAGIC - 1), *line;
    int result = memcmp(content, "RKNN\0\0\0\0", 8) || !at ? -1 : 0;
    *script = (Script){.height = 28, .width = 28, .tokens = 9, .embedding = 16, .outputs = 1, .rank = 3,
                       .platform = FACTORY, .board = FACTORY};
    if (!result) at += sizeof MAGIC - 1;
    while (!result && (line = strsep(&at, "\n")) && strcmp(line, "end")) result = apply(script, line);
    free(content);
    return result;
}
