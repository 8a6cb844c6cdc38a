/* The tokenizer: deterministic, simple, and the same for prompts and answers.
 *
 * A token is a control token such as <|im_start|> or <think>, a word of at most 8 letters with the
 * space before it, up to 3 digits, one other character, or one byte of a character that is split:
 * four-byte characters always, with `split` every one that is not ASCII. A newline is a token, so a
 * text's tokens begin with those of the part before any newline.
 */
#ifndef VNPU_VOCAB_H
#define VNPU_VOCAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    int32_t *id;
    size_t length, capacity;
} Ids;

void ids_push(Ids *ids, int32_t id);
void ids_free(Ids *ids);

typedef struct Vocab Vocab;

Vocab *vocab_new(size_t size, int32_t eos_id, const char *eos);
void vocab_free(Vocab *vocab);
size_t vocab_size(const Vocab *vocab);

/* The text of a token, without a NUL inside; "" for one that was never seen. */
const char *vocab_text(const Vocab *vocab, int32_t id);

/* Whether a token is left out of the answer's text by skip_special_token. */
bool vocab_special(const Vocab *vocab, int32_t id);

/* The id of a text that is one token; it gets one if it has none. */
int32_t vocab_id(Vocab *vocab, const char *text, size_t length);

/* Append the tokens of `text`. */
void tokenize(Vocab *vocab, const char *text, bool split, Ids *ids);

/* FNV-1a. */
uint32_t hash_bytes(const void *bytes, size_t length);

#endif
