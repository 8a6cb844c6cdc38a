/* From a run's input to tokens, and what of them the KV cache already holds. */
#ifndef VNPU_PROMPT_H
#define VNPU_PROMPT_H

#include "instance.h"

/* Fill the slot's prompt, prompt_text and config from one input; 0, or -1 after a complaint. */
int prompt_read(Instance *instance, Slot *slot, const RKLLMInput *input, const char *lora);

/* Set matched and evaluated, and cut the KV cache to what is used of it. Returns -1 when the prompt
 * is longer than the context. */
int prompt_match(Instance *instance, Slot *slot);

/* Make room for one more token: drop the older half behind the first n_keep. */
void kv_shift(Instance *instance, Slot *slot, size_t needed);

#endif
