/* What may be passed: ranges of values, and memory that is really there. */
#ifndef VNPU_CHECK_H
#define VNPU_CHECK_H

#include "config.h"
#include "release.h"

/* How to draw tokens, from RKLLMParam or RKLLMSamplingParam. */
typedef struct {
    int32_t top_k;
    float top_p, temperature, repeat_penalty, frequency_penalty, presence_penalty;
    int32_t mirostat;
    float mirostat_tau, mirostat_eta;
} Sampling;

/* Each returns 0 or complains and returns -1; what only a wrong layout gives aborts. */
int check_sampling(const Sampling *sampling);
int check_param(const RKLLMParam *param);
int check_input(const RKLLMInput *input, const Config *config);
int check_infer(const RKLLMInferParam *infer);

Sampling sampling_of_param(const RKLLMParam *param);

/* Abort unless `pointer` is memory that can be read; `what` names it. */
void check_readable(const void *pointer, const char *what);

/* Abort unless `pointer` is code (`code`), or is data (not `code`). */
void check_code(uintptr_t pointer, bool code, const char *what);

/* Abort unless the byte of a bool is 0 or 1. */
void check_bool(const void *byte, const char *what);

#endif
