/* Pictures in the input: what the model sees of them. */
#ifndef VNPU_PICTURE_H
#define VNPU_PICTURE_H

#include "instance.h"

typedef struct {
    const float *rows;     /* count x tokens x width, one picture after the other */
    size_t count, tokens;  /* pictures, and tokens of each */
    const char *start, *end, *content;
} Pictures;

/* The pictures of a multimodal input; a count of 0: it has none. */
Pictures pictures_of(const Instance *instance, const RKLLMInput *input);

/* What the model answers with mode=picture, in fresh memory: see README.md. Embeddings of the virtual
 * encoder whose outputs are not interleaved abort. */
char *pictures_describe(const Slot *slot, const Pictures *pictures, size_t width, size_t outputs);

#endif
