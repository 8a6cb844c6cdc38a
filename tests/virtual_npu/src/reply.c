#include "reply.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One token each, also with a space before; 64 of them. */
static const char *const words[64] = {
    "amber", "basil", "cedar", "delta", "ember", "fjord", "grove", "heron", "inlet", "jetty",
    "kayak", "lemon", "maple", "north", "ocean", "pearl", "quill", "river", "stone", "tulip",
    "umbra", "velvet", "wheat", "xenon", "yield", "zebra", "acorn", "birch", "coral", "dune",
    "eagle", "flint", "glade", "hazel", "ivory", "juice", "knoll", "lilac", "moss", "nectar",
    "olive", "plume", "quartz", "reed", "slate", "thyme", "ultra", "vapor", "willow", "yarrow",
    "zinc", "alder", "brook", "clover", "dawn", "elm", "fern", "gale", "holly", "iris", "jade",
    "kelp", "lark", "mint",
};

/* Characters of a prompt that may be the begin of the answer. */
#define OPEN_TURN 8192

#define WORDS (sizeof words / sizeof *words)

uint64_t random_next(uint64_t *state) {
    uint64_t mixed = (*state += 0x9E3779B97F4A7C15u);
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9u;
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EBu;
    return mixed ^ mixed >> 31;
}

/* Whether `text` goes on with `part`, blanks aside; where behind it in `text` is written to `end`. */
static bool begins_with(const char *text, const char *part, const char **end) {
    for (; *part; part++) {
        if (strchr(" \n\r\t", *part)) continue;
        while (*text && strchr(" \n\r\t", *text)) text++;
        if (*text++ != *part) return false;
    }
    *end = text;
    return true;
}

/* A model whose turn has begun with JSON goes on from there: what of `text` comes behind the longest end of the
 * prompt that stands in it, too; NULL where none does. */
static const char *rest_of(const char *text, const char *prompt) {
    size_t length = strlen(prompt);
    const char *end, *start = length > OPEN_TURN ? prompt + length - OPEN_TURN : prompt;
    for (const char *tail = start; (tail = strpbrk(tail, "{[\"")); tail++)
        for (const char *at = text; *at; at++)
            if (begins_with(at, tail, &end)) return end;
    return NULL;
}

/* What is behind the last end-of-sequence token of the prompt. */
static const char *open_turn(const char *prompt, const char *eos) {
    const char *turn = prompt;
    for (const char *at = prompt; *eos && (at = strstr(at, eos)); at++) turn = at;
    return turn;
}

/* The reply, or what is left of it, with what the script wants to be wrong; in fresh memory. */
static char *written_of(const Config *config, const char *prompt, uint64_t run, Begin *begin) {
    const char *rest = rest_of(config->reply, prompt), *first = "";
    if (!config->faults) return strdup(rest ? rest : config->reply);
    if (!rest) rest = behind_value(config->reply, open_turn(prompt, config->eos), &first);
    char *text = with_faults(config, rest ? rest : config->reply, run, begin), *whole;
    if (asprintf(&whole, "%s%s", first, text) < 0) abort();
    free(text);
    return whole;
}

static bool draws_text(Mode mode) {
    return mode != REPLY_TOKENS && mode != REPLY_RANDOM;
}

Reply reply_plan(const Config *config, Vocab *vocab, const char *prompt, const char *message,
                 const char *params, const Sampling *sampling, uint64_t run,
                 Begin *begin) {
    Reply reply = {.mode = config->mode,
                   .length = config->tokens,
                   .sampling = *sampling,
                   .eos_id = (int32_t)config->eos_id};
    reply.random = hash_bytes(prompt, strlen(prompt));
    reply.random ^= (config->seed < 0 ? run : (uint64_t)config->seed) << 32;
    if (draws_text(config->mode)) {
        char *written = config->mode == REPLY_TEXT ? written_of(config, prompt, run, begin) : NULL;
        const char *text = written                        ? written
                           : config->mode == REPLY_PROMPT ? prompt
                           : config->mode == REPLY_PARAMS || config->mode == REPLY_PICTURE ? params
                                                          : message;
        tokenize(vocab, text, config->split, &reply.text);
        free(written);
        reply.length = (int64_t)reply.text.length;
    }
    return reply;
}

void reply_free(Reply *reply) {
    ids_free(&reply->text);
}

static int32_t word_id(Vocab *vocab, size_t word, bool first) {
    char spaced[16] = " ";
    strcpy(spaced + 1, words[word]);
    return vocab_id(vocab, spaced + first, strlen(spaced + first));
}

/* How much a word is wanted next, before the temperature: most for the first after `favourite`. */
static double wanted(const Reply *reply, size_t word, size_t favourite) {
    const Sampling *s = &reply->sampling;
    double logit = 8 - 0.25 * (double)((word + WORDS - favourite) % WORDS);
    if (reply->used[word]) {
        logit = logit > 0 ? logit / (double)s->repeat_penalty : logit * (double)s->repeat_penalty;
        logit -= (double)s->presence_penalty + reply->used[word] * (double)s->frequency_penalty;
    }
    return logit;
}

/* Words by falling logit; the list is short, so insertion is fast enough. */
static void rank(const Reply *reply, size_t favourite, size_t order[WORDS], double logits[WORDS]) {
    for (size_t word = 0; word < WORDS; word++) {
        double logit = wanted(reply, word, favourite);
        size_t at = word;
        for (; at && logits[at - 1] < logit; at--) {
            logits[at] = logits[at - 1];
            order[at] = order[at - 1];
        }
        logits[at] = logit;
        order[at] = word;
    }
}

static size_t draw(Reply *reply, size_t favourite) {
    const Sampling *s = &reply->sampling;
    size_t order[WORDS], count = WORDS;
    double logits[WORDS], total = 0, sum = 0;
    rank(reply, favourite, order, logits);
    if (s->temperature <= 0 || s->top_k == 1) return order[0];
    if (s->top_k > 0 && (size_t)s->top_k < count) count = (size_t)s->top_k;
    for (size_t i = 0; i < count; i++) {
        logits[i] = exp((logits[i] - 8) / (double)s->temperature);
        total += logits[i];
    }
    for (size_t i = 0; i < count; i++)
        if ((sum += logits[i]) >= total * (double)s->top_p) {
            count = i + 1;
            break;
        }
    double aim = (double)(random_next(&reply->random) >> 11) / (double)(1ull << 53) *
                 (sum < total ? sum : total);
    for (size_t i = 0; i < count; i++)
        if ((aim -= logits[i]) < 0) return order[i];
    return order[count - 1];
}

static int32_t next_word(Reply *reply, Vocab *vocab) {
    size_t position = (size_t)reply->position, word = (position * 7 + position / WORDS) % WORDS;
    if (reply->mode == REPLY_RANDOM) {
        word = draw(reply, word);
        reply->used[word]++;
    }
    return word_id(vocab, word, position == 0);
}

int32_t reply_next(Reply *reply, Vocab *vocab) {
    int32_t id = reply->position < reply->length && draws_text(reply->mode)
                     ? reply->text.id[reply->position]
                 : reply->position == reply->length ? reply->eos_id
                                                    : next_word(reply, vocab);
    reply->position++;
    return id;
}
