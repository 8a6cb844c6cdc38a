/* What the release that is compiled can do; VNPU_ABI and VNPU_RELEASE come with the header. */
#ifndef VNPU_RELEASE_H
#define VNPU_RELEASE_H

#include "rkllm.h"

#define RELEASE(major, minor, patch) ((((major) * 100 + (minor)) * 100 + (patch)) * 10 + 9)

#define HAS_CPUS (VNPU_ABI >= RELEASE(1, 2, 0))          /* extend_param's CPU mask, n_keep */
#define HAS_TEMPLATE (VNPU_ABI >= RELEASE(1, 2, 0))      /* rkllm_set_chat_template */
#define HAS_HISTORY (VNPU_ABI >= RELEASE(1, 2, 0))       /* keep_history, prefix reuse */
#define HAS_LOGITS (VNPU_ABI >= RELEASE(1, 2, 0))        /* RKLLM_INFER_GET_LOGITS */
#define HAS_IMAGES (VNPU_ABI > RELEASE(1, 2, 0))         /* n_image, image_width, image_height */
#define HAS_ROLE (VNPU_ABI >= RELEASE(1, 2, 1))          /* role, enable_thinking, tools */
#define HAS_BATCH (VNPU_ABI >= RELEASE(1, 2, 1))         /* n_batch, cross attention */
#define HAS_PERF (VNPU_ABI >= RELEASE(1, 2, 1))          /* RKLLMPerfStat */
#define CALLBACK_ANSWERS (VNPU_ABI >= RELEASE(1, 2, 1))  /* the result callback returns int */
#define EMBEDDINGS_REUSED (VNPU_ABI >= RELEASE(1, 2, 3)) /* prefix reuse of embedding input */
#define HAS_RUN_SAMPLING (VNPU_ABI >= RELEASE(1, 3, 0))  /* sampling_params, max_new_tokens */
#define HAS_CALLBACK_STRUCT (VNPU_ABI >= RELEASE(1, 3, 0))
#define RUNNING_IS_ONE (VNPU_ABI >= RELEASE(1, 3, 0))

#if UINTPTR_MAX > 0xFFFFFFFFu
/* The sizes that tell the layouts apart; all else is compared in the binding's own tests. */
#if HAS_RUN_SAMPLING
_Static_assert(sizeof(RKLLMParam) == 184, "RKLLMParam of 1.3.0");
#elif HAS_CPUS
_Static_assert(sizeof(RKLLMParam) == 208, "RKLLMParam of 1.2.x");
#else
_Static_assert(sizeof(RKLLMParam) == 200, "RKLLMParam of 1.1.x");
#endif
#endif

#endif
