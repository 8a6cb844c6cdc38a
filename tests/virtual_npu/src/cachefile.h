/* Prompt cache files: the tokens of a KV cache, by their texts. */
#ifndef VNPU_CACHEFILE_H
#define VNPU_CACHEFILE_H

#include "vocab.h"

/* Each returns 0, or -1 after a complaint. */
int cache_save(const char *path, const Vocab *vocab, const Ids *kv);
int cache_load(const char *path, Vocab *vocab, Ids *kv);

#endif
