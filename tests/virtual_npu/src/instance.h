/* A loaded model and the run in progress on it. */
#ifndef VNPU_INSTANCE_H
#define VNPU_INSTANCE_H

#include <pthread.h>
#include <stdatomic.h>

#include "cachefile.h"
#include "check.h"
#include "config.h"
#include "reply.h"
#include "template.h"
#include "vocab.h"

#define MOST_BATCH 100  /* inputs of a run */
#define PIECE_BYTES 160 /* room for a token and for what is held back before it */

/* One input of a run; there are n_batch of them, and each has its own KV cache. */
typedef struct {
    Ids kv;               /* the tokens in the KV cache */
    size_t system_length; /* of them, those of the system prompt */

    Config config; /* the model's, with the run's LoRA and directive on top */
    Ids prompt;    /* the tokens of the input */
    char *prompt_text;
    Reply reply;
    Begin begin; /* where in replies the runs began */
    size_t matched, evaluated; /* of the whole prompt: found in the KV cache, computed */
    int32_t next;              /* the token to give now */
    int32_t last;              /* given, but not yet in the KV cache; -1: none */
    int64_t given;             /* tokens given to the caller */
    int64_t shifts;            /* how often the context was full */
    bool planned, done;
    char piece[PIECE_BYTES]; /* what the callback reads */
    size_t piece_length;     /* bytes in it that were held back */
    int missing;             /* bytes that the last character still lacks */
} Slot;

typedef struct Lora {
    char *name, *path;
    struct Lora *next;
} Lora;

/* The run in progress, for all slots. */
typedef struct {
    void *userdata;
    RKLLMInferMode mode;
    Sampling sampling;
    int64_t max_new; /* -1: no limit */
    bool history;    /* the input goes behind what the KV cache holds */
    bool reuse;      /* the prefix that the KV cache holds is not computed again */
    char *save_cache;  /* where the state after the prefill is written when the run ends */
    size_t save_tokens; /* how long it is */
    int64_t start, prefilled, deadline;
    int64_t *times; /* when each token was given, if traced */
    int64_t steps;
    bool paused;
} Run;

typedef struct Instance {
    Config config;
    Vocab *vocab;
    RKLLMParam param;
    LLMResultCallback callback;
#if HAS_CALLBACK_STRUCT
    RKLLMCallback callbacks;
#endif
    Template template;
    Lora *loras;
    Slot *slots;
    int n_batch;
    RKLLMResult *results;
    Run run;
    uint64_t runs;
    int trace, memory;
    bool history;      /* a run kept its history, and nothing has cleared it since */
    bool cache_loaded; /* a prompt cache file is in the KV cache */
    bool cross_attn;   /* cross attention parameters are set */
    bool doomed;       /* the file was no model: dies at the first run */
    float **held;      /* output buffers that the callback did not release */
    size_t held_count;
    int64_t pauses;
    atomic_bool running, aborted;
    atomic_bool ending; /* the callback's last call of the run is made, or being made */
    pthread_t thread;
    bool threaded;
} Instance;

/* Check and take in a run's input; 0, or -1 after a complaint. */
int run_prepare(Instance *instance, const RKLLMInput *inputs, const RKLLMInferParam *infer,
                void *userdata);

/* Run to the end, to rkllm_abort or to an error; the result is rkllm_run's. */
int run_execute(Instance *instance);

/* What a prompt cache file of this model belongs to. */
Origin origin_of(const Instance *instance);

/* Free what belongs to the run alone. */
void run_free(Instance *instance);

#endif
