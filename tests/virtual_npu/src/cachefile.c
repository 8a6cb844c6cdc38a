#include "cachefile.h"

#include <stdio.h>
#include <string.h>

#include "report.h"

#define MAGIC "vnpu prompt cache 1\n"

typedef struct {
    int32_t id; /* for what has no text */
    uint32_t length;
} Entry;

int cache_save(const char *path, const Vocab *vocab, const Ids *kv) {
    FILE *file = fopen(path, "wbe");
    if (!file) return refuse("the prompt cache %s cannot be written", path);
    fputs(MAGIC, file);
    for (size_t i = 0; i < kv->length; i++) {
        const char *text = vocab_text(vocab, kv->id[i]);
        Entry entry = {kv->id[i], (uint32_t)strlen(text)};
        fwrite(&entry, sizeof entry, 1, file);
        fwrite(text, 1, entry.length, file);
    }
    return fclose(file) ? refuse("the prompt cache %s cannot be written", path) : 0;
}

int cache_load(const char *path, Vocab *vocab, Ids *kv) {
    char text[256] = {0};
    FILE *file = fopen(path, "rbe");
    if (!file) return refuse("the prompt cache %s cannot be read", path);
    bool good = fread(text, 1, sizeof MAGIC - 1, file) == sizeof MAGIC - 1 && !strcmp(text, MAGIC);
    Entry entry;
    kv->length = 0;
    while (good && fread(&entry, sizeof entry, 1, file) == 1) {
        good = entry.length < sizeof text && fread(text, 1, entry.length, file) == entry.length;
        if (good) ids_push(kv, entry.length > 1 ? vocab_id(vocab, text, entry.length) : entry.id);
    }
    fclose(file);
    return good ? 0 : refuse("%s is not a prompt cache", path);
}
