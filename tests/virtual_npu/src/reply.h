/* What the model answers, token by token. */
#ifndef VNPU_REPLY_H
#define VNPU_REPLY_H

#include "check.h"
#include "config.h"
#include "faults.h"
#include "vocab.h"

typedef struct {
    Mode mode;
    Ids text;          /* REPLY_TEXT and the like: the answer's tokens */
    int64_t position;  /* tokens given so far */
    int64_t length;    /* tokens before the end-of-sequence token; -1: the text says */
    uint64_t random;   /* the generator's state */
    Sampling sampling;
    int32_t eos_id;
    uint16_t used[64]; /* how often each word was drawn */
} Reply;

/* Plan the answer. `prompt` is what the model sees, `message` the user's text in it; `params` is
 * the answer of REPLY_PARAMS and REPLY_PICTURE; `run` counts the instance's runs, `begin` where in
 * a reply they began. */
Reply reply_plan(const Config *config, Vocab *vocab, const char *prompt, const char *message,
                 const char *params, const Sampling *sampling, uint64_t run,
                 Begin *begin);
void reply_free(Reply *reply);

/* The next token; the end-of-sequence token at the end, and words once it was passed. */
int32_t reply_next(Reply *reply, Vocab *vocab);

/* A generator of well mixed 64-bit numbers. */
uint64_t random_next(uint64_t *state);

#endif
