#include "prompt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "picture.h"
#include "report.h"

/* Ids of what has no text: pieces of an image or of embedding input; below 0, above -1. */
static void push_vectors(Ids *ids, const float *rows, size_t count, size_t size) {
    for (size_t i = 0; i < count; i++)
        ids_push(ids, (int32_t)(hash_bytes(rows + i * size, size * sizeof *rows) | 1u << 31) & ~1);
}

static void push_text(Instance *instance, Slot *slot, const char *text) {
    tokenize(instance->vocab, text, slot->config.split, &slot->prompt);
}

#if HAS_CALLBACK_STRUCT
static int push_by_callback(Instance *instance, Slot *slot, const char *text) {
    const RKLLMCallback *callbacks = &instance->callbacks;
    int32_t most = (int32_t)strlen(text) + 16, *ids = calloc((size_t)most, sizeof *ids);
    int count = callbacks->tokenizer_callback(callbacks->tokenizer_userdata, text,
                                              (int32_t)strlen(text), ids, most);
    for (int i = 0; i < count && i < most; i++) ids_push(&slot->prompt, ids[i]);
    free(ids);
    return count > 0 && count <= most ? 0 : refuse("tokenizer_callback returned %d", count);
}
#endif

static char *templated(Instance *instance, Slot *slot, const RKLLMInput *input,
                       const char *content) {
    const char *role = "user";
    bool thinking = true;
#if HAS_ROLE
    role = input->role;
    thinking = input->enable_thinking;
#else
    (void)input;
#endif
    char *system = template_system(&instance->template), *text;
    char *message = template_message(&instance->template, role, thinking, content);
    bool begins = !(instance->run.history && slot->kv.length);
    if (begins) {
        Ids ids = {0};
        tokenize(instance->vocab, system, slot->config.split, &ids);
        slot->system_length = ids.length;
        ids_free(&ids);
    }
    if (asprintf(&text, "%s%s", begins ? system : "", message) < 0) abort();
    free(system);
    free(message);
    return text;
}

/* The text of token input; what has no text is left out. */
static char *text_of_tokens(const Instance *instance, const RKLLMTokenInput *tokens) {
    size_t length = 1, at = 0;
    for (size_t i = 0; i < tokens->n_tokens; i++)
        length += strlen(vocab_text(instance->vocab, tokens->input_ids[i]));
    char *text = malloc(length);
    for (size_t i = 0; i < tokens->n_tokens; i++) {
        const char *piece = vocab_text(instance->vocab, tokens->input_ids[i]);
        strcpy(text + at, piece);
        at += strlen(piece);
    }
    text[at] = 0;
    return text;
}

static size_t count_tags(const char *text, const char *tag) {
    size_t count = 0;
    for (const char *at = text; (at = strstr(at, tag)); at += strlen(tag)) count++;
    return count;
}

/* Push the text with vectors in the place of the tags: `count` groups of `size`, one for each tag, or all
 * for one; -1 where there are other numbers of tags. */
static int push_media(Instance *instance, Slot *slot, const char *text, const char *tag,
                      const float *rows, size_t count, size_t size) {
    size_t tags = count_tags(text, tag), width = (size_t)instance->config.embd_size;
    if (!tags) return refuse("the multimodal prompt lacks %s", tag);
    if (tags != 1 && tags != count)
        return refuse("the multimodal prompt has %zu %s for %zu", tags, tag, count);
    if (tags == 1) size *= count;
    width *= (size_t)instance->config.image_outputs;
    for (; tags; tags--, rows += size * width) {
        const char *at = strstr(text, tag);
        char *before = strndup(text, (size_t)(at - text));
        push_text(instance, slot, before);
        free(before);
        push_vectors(&slot->prompt, rows, size, width);
        text = at + strlen(tag);
    }
    push_text(instance, slot, text);
    return 0;
}

static int push_multimodal(Instance *instance, Slot *slot, const RKLLMInput *input,
                           const char *text) {
    Pictures pictures = pictures_of(instance, input);
#if HAS_RUN_SAMPLING
    __typeof__(&input->multimodal_input.video) video = &input->multimodal_input.video;
    if (!pictures.count)
        return push_media(instance, slot, text, "<video>", video->video_embed,
                          video->n_video * video->n_frame_per_video, video->n_frame_tokens);
#endif
    return push_media(instance, slot, text, "<image>", pictures.rows, pictures.count,
                      pictures.tokens);
}

static const char *content_of(const RKLLMInput *input) {
    return input->input_type == RKLLM_INPUT_PROMPT       ? input->prompt_input
           : input->input_type == RKLLM_INPUT_MULTIMODAL ? input->multimodal_input.prompt
                                                         : NULL;
}

static int push_input(Instance *instance, Slot *slot, const RKLLMInput *input) {
    switch (input->input_type) {
    case RKLLM_INPUT_TOKEN:
        for (size_t i = 0; i < input->token_input.n_tokens; i++)
            ids_push(&slot->prompt, input->token_input.input_ids[i]);
        return 0;
    case RKLLM_INPUT_EMBED:
        push_vectors(&slot->prompt, input->embed_input.embed, input->embed_input.n_tokens,
                     (size_t)instance->config.embd_size);
        return 0;
    case RKLLM_INPUT_MULTIMODAL:
        return push_multimodal(instance, slot, input, slot->prompt_text);
    case RKLLM_INPUT_PROMPT:
        break;
    }
#if HAS_CALLBACK_STRUCT
    if (instance->callbacks.tokenizer_callback)
        return push_by_callback(instance, slot, slot->prompt_text);
#endif
    push_text(instance, slot, slot->prompt_text);
    return 0;
}

static int apply_lora(const Instance *instance, Config *config, const char *name) {
    const Lora *lora = instance->loras;
    while (lora && strcmp(lora->name, name)) lora = lora->next;
    if (!lora) return refuse("no LoRA adapter \"%s\" is loaded", name);
    return config_read(config, lora->path) == MODEL_READ
               ? 0
               : refuse("the LoRA file %s cannot be read", lora->path);
}

int prompt_read(Instance *instance, Slot *slot, const RKLLMInput *input, const char *lora) {
    const char *start, *end, *content = content_of(input);
    slot->config = config_copy(&instance->config);
    if (lora && apply_lora(instance, &slot->config, lora)) return -1;
    slot->prompt_text = content ? strdup(content) : NULL;
    if (!content && input->input_type == RKLLM_INPUT_TOKEN)
        slot->prompt_text = text_of_tokens(instance, &input->token_input);
    if (slot->prompt_text && directive_find(slot->prompt_text, &start, &end) &&
        directive_apply(&slot->config, start, end))
        return -1;
    if (content) {
        free(slot->prompt_text);
        slot->prompt_text = templated(instance, slot, input, content);
    } else if (!slot->prompt_text) {
        slot->prompt_text = strdup("");
    }
    return push_input(instance, slot, input);
}

void kv_shift(Instance *instance, Slot *slot, size_t needed) {
    size_t limit = (size_t)instance->param.max_context_len, length = slot->kv.length, keep = 0;
    if (length + needed <= limit) return;
#if HAS_CPUS
    if (instance->param.n_keep > 0) keep = (size_t)instance->param.n_keep;
#endif
    if (keep + needed > limit / 2) keep = 0;
    size_t drop = (length - keep) / 2;
    if (length - drop + needed > limit) drop = length + needed - limit;
    if (drop > length - keep) drop = length - keep;
    memmove(slot->kv.id + keep, slot->kv.id + keep + drop,
            (length - keep - drop) * sizeof *slot->kv.id);
    slot->kv.length = length - drop;
    if (!slot->shifts++)
        log_line('W', "the context is full: kept %zu tokens, dropped %zu", keep, drop);
}

int prompt_match(Instance *instance, Slot *slot) {
    size_t length = slot->prompt.length, same = 0;
    if (length >= (size_t)instance->param.max_context_len) {
        log_line('E', "prompt gather than max context, prompt: %zu tokens, max context: %d", length,
                 instance->param.max_context_len);
        return -1;
    }
    if (instance->run.history) {
        kv_shift(instance, slot, length + 1);
        slot->matched = slot->kv.length;
        slot->evaluated = length;
        return 0;
    }
    while (instance->run.reuse && same < slot->kv.length && same + 1 < length &&
           slot->kv.id[same] == slot->prompt.id[same])
        same++;
    slot->kv.length = slot->matched = same;
    slot->evaluated = length - same;
    return 0;
}
