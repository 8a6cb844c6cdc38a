#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "release.h"
#include "report.h"
#include "vocab.h"

#define MAGIC "vnpu model 1\n"
#define FILE_LIMIT (4 << 20)
#define DIRECTIVE "@vnpu{"

enum { NUMBER, TEXT, MODE, WAITING_KIND };

typedef struct {
    const char *name;
    int kind;
    size_t offset;
    int64_t least, most;
    int mode; /* setting this key chooses this mode; -1: none */
} Key;

#define N(name, least, most) {#name, NUMBER, offsetof(Config, name), least, most, -1}
#define T(name) {#name, TEXT, offsetof(Config, name), 0, 0, -1}
#define HOUR_US 3600000000

static const Key keys[] = {
    {"mode", MODE, offsetof(Config, mode), 0, 0, -1},
    {"waiting", WAITING_KIND, offsetof(Config, waiting), 0, 0, -1},
    {"reply", TEXT, offsetof(Config, reply), 0, 0, REPLY_TEXT},
    {"tokens", NUMBER, offsetof(Config, tokens), 0, INT32_MAX, REPLY_TOKENS},
    {"random", NUMBER, offsetof(Config, tokens), 0, INT32_MAX, REPLY_RANDOM},
    N(seed, -1, INT64_MAX),
    N(faults, 0, 100),
    N(fault_tries, 0, INT32_MAX),
    N(split, 0, 1),
    N(no_eos, 0, 1),
    N(think_template, 0, 1),
    N(prefill_us, 0, HOUR_US),
    N(token_us, 0, HOUR_US),
    N(load_ms, 0, 3600000),
    N(init_error, 0, 1),
    N(init_null, 0, 1),
    N(crash_in_init, 0, 1),
    N(hang_in_init, 0, 1),
    N(run_error, 0, 1),
    N(run_fail, 0, 1),
    N(error_at, -1, INT32_MAX),
    N(segv_at, -1, INT32_MAX),
    N(abort_at, -1, INT32_MAX),
    N(exit_at, -1, INT32_MAX),
    N(exit_code, 0, 255),
    N(hang_at, -1, INT32_MAX),
    N(abort_finish, 0, 1),
    N(magic_bad, 0, 2),
    N(eos_id, 0, INT32_MAX),
    N(vocab_size, 1024, 1 << 20),
    N(embd_size, 4, 1 << 16),
    N(image_outputs, 1, 8),
    N(max_context, 16, 1 << 20),
    N(npu_core_num, 1, 8),
    N(memory_mb, 0, 1 << 20),
    N(npu_mb, 1, 1 << 20),
    N(leak_mb, 0, 1 << 10),
    N(kv_bytes, 0, 1 << 20),
    N(yes_id, -1, INT32_MAX),
    N(no_id, -1, INT32_MAX),
    N(state_fault, 0, 3),
    N(trace_tokens, 0, 1),
    N(trace_prompt, 0, 1),
    T(eos),
    T(toolkit),
    T(runtimes),
    T(platform),
    T(board),
    T(dtype),
    T(driver),
    T(log),
    T(run_log),
    T(trace),
    T(npu),
};

#define KEYS (sizeof keys / sizeof *keys)

static const char *const modes[] = {"echo", "prompt", "params", "picture", "text", "tokens", "random", NULL};
static const char *const waitings[] = {"bytes", "held", "none", NULL};

Config config_default(void) {
    Config config = {
        .mode = REPLY_ECHO,
        .seed = -1,
        .fault_tries = INT32_MAX,
        .error_at = -1,
        .segv_at = -1,
        .abort_at = -1,
        .exit_at = -1,
        .exit_code = 3,
        .hang_at = -1,
        .abort_finish = 1,
        .eos_id = 151645,
        .yes_id = -1,
        .no_id = -1,
        .vocab_size = 151936,
        .embd_size = 128,
        .image_outputs = 1,
        .max_context = 16384,
        .npu_core_num = 3,
        .memory_mb = 512,
        .npu_mb = 1 << 14,
        .reply = strdup(""),
        .eos = strdup("<|im_end|>"),
        .toolkit = strdup(VNPU_RELEASE),
        .runtimes = strdup(""),
        .platform = strdup("RK3588"),
        .board = strdup("RK3588"),
        .dtype = strdup("W8A8"),
        .driver = strdup("0.9.8"),
        .log = strdup(""),
        .run_log = strdup(""),
        .trace = strdup(""),
        .npu = strdup(""),
    };
    return config;
}

static char **text_of(const Config *config, const Key *key) {
    return (char **)((char *)(uintptr_t)config + key->offset);
}

void config_free(Config *config) {
    for (size_t i = 0; i < KEYS; i++)
        if (keys[i].kind == TEXT) {
            free(*text_of(config, &keys[i]));
            *text_of(config, &keys[i]) = NULL;
        }
}

Config config_copy(const Config *config) {
    Config copy = *config;
    for (size_t i = 0; i < KEYS; i++)
        if (keys[i].kind == TEXT) *text_of(&copy, &keys[i]) = strdup(*text_of(config, &keys[i]));
    return copy;
}

static char *put_utf8(char *out, uint32_t code) {
    if (code < 0x80) {
        *out++ = (char)code;
    } else if (code < 0x800) {
        *out++ = (char)(0xC0 | code >> 6);
        *out++ = (char)(0x80 | (code & 0x3F));
    } else if (code < 0x10000) {
        *out++ = (char)(0xE0 | code >> 12);
        *out++ = (char)(0x80 | (code >> 6 & 0x3F));
        *out++ = (char)(0x80 | (code & 0x3F));
    } else {
        *out++ = (char)(0xF0 | code >> 18);
        *out++ = (char)(0x80 | (code >> 12 & 0x3F));
        *out++ = (char)(0x80 | (code >> 6 & 0x3F));
        *out++ = (char)(0x80 | (code & 0x3F));
    }
    return out;
}

/* Write the character after a backslash; the result is behind what was read of the text. */
static const char *unescape(const char *from, const char *end, char **out) {
    int digits = *from == 'u' ? 4 : *from == 'U' ? 8 : 0;
    if (digits && end - from > digits) {
        char hex[9] = {0};
        memcpy(hex, from + 1, (size_t)digits);
        *out = put_utf8(*out, (uint32_t)strtoul(hex, NULL, 16));
        return from + 1 + digits;
    }
    *(*out)++ = *from == 'n' ? '\n' : *from == 't' ? '\t' : *from;
    return from + 1;
}

/* Read a value up to `separator` or `end` into fresh memory; `*next` is behind the separator. */
static char *read_value(const char *from, const char *end, char separator, const char **next) {
    char *value = malloc((size_t)(end - from) + 1), *out = value;
    while (from < end && *from != separator) {
        if (*from == '\\' && from + 1 < end)
            from = unescape(from + 1, end, &out);
        else
            *out++ = *from++;
    }
    *out = 0;
    *next = from < end ? from + 1 : end;
    return value;
}

static int set_number(Config *config, const Key *key, const char *value) {
    char *rest;
    errno = 0;
    long long number = strtoll(value, &rest, 10);
    if (errno || *rest || rest == value || number < key->least || number > key->most)
        return refuse("model key %s=%s: expected a number from %lld to %lld", key->name, value,
                      (long long)key->least, (long long)key->most);
    *(int64_t *)((char *)config + key->offset) = number;
    return 0;
}

static int choice(const char *const *names, const char *value) {
    for (int i = 0; names[i]; i++)
        if (!strcmp(names[i], value)) return i;
    return refuse("model value %s is not known; the first of its kind is %s", value, names[0]);
}

static int set(Config *config, const Key *key, const char *value) {
    int chosen = 0;
    if (key->kind == NUMBER) {
        if (set_number(config, key, value)) return -1;
    } else if (key->kind == TEXT) {
        free(*text_of(config, key));
        *text_of(config, key) = strdup(value);
    } else if (key->kind == MODE) {
        if ((chosen = choice(modes, value)) < 0) return -1;
        config->mode = (Mode)chosen;
    } else {
        if ((chosen = choice(waitings, value)) < 0) return -1;
        config->waiting = (Waiting)chosen;
    }
    if (key->mode >= 0) config->mode = (Mode)key->mode;
    return 0;
}

static const Key *find_key(const char *name, size_t length) {
    for (size_t i = 0; i < KEYS; i++)
        if (strlen(keys[i].name) == length && !memcmp(keys[i].name, name, length)) return &keys[i];
    return NULL;
}

int config_apply(Config *config, const char *text, const char *end, char separator) {
    while (text < end) {
        const char *equals = memchr(text, '=', (size_t)(end - text));
        const Key *key = equals ? find_key(text, (size_t)(equals - text)) : NULL;
        if (!key) return refuse("model key in \"%.*s\" is not known", (int)(end - text), text);
        char *value = read_value(equals + 1, end, separator, &text);
        int failed = set(config, key, value);
        free(value);
        if (failed) return -1;
    }
    return 0;
}

static char *read_file(const char *path) {
    FILE *file = fopen(path, "rbe");
    if (!file) return NULL;
    char *content = calloc(1, FILE_LIMIT + 1);
    size_t length = fread(content, 1, sizeof MAGIC - 1, file);
    if (length == sizeof MAGIC - 1 && !memcmp(content, MAGIC, length))
        length += fread(content + length, 1, FILE_LIMIT - length, file);
    content[length] = 0;
    fclose(file);
    return content;
}

ModelFile config_read(Config *config, const char *path) {
    char *content = read_file(path);
    if (!content) return MODEL_MISSING;
    ModelFile result = MODEL_FOREIGN;
    if (!strncmp(content, MAGIC, sizeof MAGIC - 1)) {
        const char *start = content + sizeof MAGIC - 1;
        const char *end = strstr(content, "\nend\n");
        end = end ? end + 1 : content + strlen(content);
        config->identity = hash_bytes(content, strlen(content));
        result = config_apply(config, start, end, '\n') ? MODEL_WRONG : MODEL_READ;
    }
    free(content);
    return result;
}

bool directive_find(const char *text, const char **start, const char **end) {
    bool found = false;
    for (const char *at = text; (at = strstr(at, DIRECTIVE)); at++) {
        const char *close = at;
        while (*close && *close != '}') close += *close == '\\' && close[1] ? 2 : 1;
        if (*close) {
            found = true;
            *start = at;
            *end = close + 1;
        }
    }
    return found;
}

int directive_apply(Config *config, const char *start, const char *end) {
    return config_apply(config, start + sizeof DIRECTIVE - 1, end - 1, ';');
}
