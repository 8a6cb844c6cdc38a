/* Hidden states and logits: made-up numbers, but the same for the same text, alike for alike. */
#ifndef VNPU_VECTORS_H
#define VNPU_VECTORS_H

#include "vocab.h"

/* `ids->length` rows of `size` floats in fresh memory. A row is the mean of the features of the
 * words up to it, scaled to length 1; control tokens, spaces and case count for nothing. */
float *hidden_states(const Vocab *vocab, const Ids *ids, size_t size);

/* `ids->length` rows of vocab_size floats in fresh memory; `next` is the last row's greatest. */
float *logits(const Vocab *vocab, const Ids *ids, int32_t next);

/* Set the logits of "yes" and "no" in a row by how much of the query's words stand in the document,
 * as a reranker's prompt has them: behind "<Query>: " and "<Document>: ". */
void judge(float *row, const char *prompt, int64_t yes_id, int64_t no_id);

#endif
