#include "cachefile.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "report.h"

#define MAGIC "vnpu prompt cache 2\n"
#define END "end of prompt cache\n"
#define BLOCK (1 << 16)

typedef struct {
    int32_t id; /* for what has no text */
    uint32_t length;
} Entry;

static void save_tokens(FILE *file, const Vocab *vocab, const Ids *kv) {
    uint32_t count = (uint32_t)kv->length;
    fwrite(&count, sizeof count, 1, file);
    for (size_t i = 0; i < kv->length; i++) {
        const char *text = vocab_text(vocab, kv->id[i]);
        Entry entry = {kv->id[i], (uint32_t)strlen(text)};
        fwrite(&entry, sizeof entry, 1, file);
        fwrite(text, 1, entry.length, file);
    }
}

/* Bytes that no file system stores as a hole or compresses. */
static void save_filling(FILE *file, size_t bytes) {
    static uint32_t block[BLOCK / sizeof(uint32_t)];
    for (size_t i = 0; !block[BLOCK / sizeof(uint32_t) - 1] && i < BLOCK / sizeof(uint32_t); i++)
        block[i] = (uint32_t)(i + 1) * 2654435761u;
    for (size_t part; bytes; bytes -= part) {
        part = bytes < BLOCK ? bytes : BLOCK;
        fwrite(block, 1, part, file);
    }
}

int cache_save(const char *path, const Vocab *vocab, const Ids *kv, const Origin *origin,
               bool whole) {
    FILE *file = fopen(path, "wbe");
    if (!file) return refuse("the prompt cache %s cannot be written", path);
    fputs(MAGIC, file);
    fwrite(origin, sizeof *origin, 1, file);
    save_tokens(file, vocab, kv);
    save_filling(file, kv->length * origin->kv_bytes);
    if (whole) fputs(END, file);
    bool failed = ferror(file);
    return fclose(file) || failed ? refuse("the prompt cache %s cannot be written", path) : 0;
}

static bool is_there(FILE *file, const char *expected) {
    char text[32] = {0};
    size_t length = strlen(expected);
    return fread(text, 1, length, file) == length && !strcmp(text, expected);
}

static bool load_tokens(FILE *file, Vocab *vocab, Ids *kv) {
    char text[256];
    Entry entry;
    uint32_t count = 0;
    kv->length = 0;
    bool good = fread(&count, sizeof count, 1, file) == 1;
    for (uint32_t i = 0; good && i < count; i++) {
        good = fread(&entry, sizeof entry, 1, file) == 1 && entry.length < sizeof text &&
               fread(text, 1, entry.length, file) == entry.length;
        if (good) ids_push(kv, entry.length > 1 ? vocab_id(vocab, text, entry.length) : entry.id);
    }
    return good;
}

static bool load_filling(FILE *file, size_t bytes) {
    char *block = malloc(BLOCK);
    size_t got = 1;
    for (; bytes && got; bytes -= got) got = fread(block, 1, bytes < BLOCK ? bytes : BLOCK, file);
    free(block);
    return !bytes;
}

static int foreign(const char *path, const Origin *its, const Origin *ours) {
    if (strcmp(its->release, ours->release))
        return refuse("%s was written by release %s", path, its->release);
    if (its->context != ours->context)
        return refuse("%s is for a context of %d tokens", path, its->context);
    if (its->model != ours->model || its->kv_bytes != ours->kv_bytes)
        return refuse("%s belongs to another model", path);
    return 0;
}

int cache_load(const char *path, Vocab *vocab, Ids *kv, const Origin *origin) {
    Origin its = {0};
    FILE *file = fopen(path, "rbe");
    if (!file) return refuse("the prompt cache %s cannot be read", path);
    bool good = is_there(file, MAGIC) && fread(&its, sizeof its, 1, file) == 1;
    int result = good ? foreign(path, &its, origin) : refuse("%s is not a prompt cache", path);
    if (!result && !(load_tokens(file, vocab, kv) &&
                     load_filling(file, kv->length * its.kv_bytes) && is_there(file, END))) {
        kv->length = 0;
        result = refuse("the prompt cache %s is not whole", path);
    }
    fclose(file);
    return result;
}
