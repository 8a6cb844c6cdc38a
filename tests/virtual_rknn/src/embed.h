/* From pixels to embeddings that tell what the pixels were. */
#ifndef VRKNN_EMBED_H
#define VRKNN_EMBED_H

#include <stdint.h>

#include "script.h"

/* The rows of one output in fresh memory, tokens x embedding floats; `pixels` are RGB, NHWC. */
float *embed(const Script *script, const uint8_t *pixels, int64_t output);

/* FNV-1a of the pixels. */
uint32_t hash_pixels(const Script *script, const uint8_t *pixels);

#endif
