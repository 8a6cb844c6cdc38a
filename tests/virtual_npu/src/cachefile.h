/* Prompt cache files: the tokens of a KV cache, what they belong to, and bytes in the place of the cache. */
#ifndef VNPU_CACHEFILE_H
#define VNPU_CACHEFILE_H

#include "vocab.h"

/* What a file belongs to: nothing else may load it. */
typedef struct {
    char release[16];
    uint32_t model; /* hash of its file */
    int32_t context;
    uint32_t kv_bytes; /* for each token */
} Origin;

/* `whole` is false for the state that an aborted run leaves: a file that cannot be loaded. */
int cache_save(const char *path, const Vocab *vocab, const Ids *kv, const Origin *origin,
               bool whole);
int cache_load(const char *path, Vocab *vocab, Ids *kv, const Origin *origin);

#endif
