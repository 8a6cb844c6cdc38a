#include "check.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "report.h"

void check_readable(const void *pointer, const char *what) {
    if (!pointer) reject("%s is NULL", what);
    /* The kernel looks at the memory for us and says EFAULT instead of SIGSEGV. */
    if (access(pointer, F_OK) && errno == EFAULT) reject("%s is a wild pointer %p", what, pointer);
}

void check_bool(const void *byte, const char *what) {
    uint8_t value = *(const uint8_t *)byte;
    if (value > 1) reject("%s is a bool with the value %d", what, value);
}

/* Whether the mapping that holds `pointer` is executable; -1: no mapping, -2: no way to know. */
static int is_executable(uintptr_t pointer) {
#if VNPU_EMULATED
    /* qemu's list joins neighbours whose rights differ for the emulated program only. */
    return -2;
#endif
    FILE *maps = fopen("/proc/self/maps", "re");
    if (!maps) return -2;
    char line[512], right[5];
    unsigned long long from, to;
    int found = -1;
    while (found < 0 && fgets(line, sizeof line, maps))
        if (sscanf(line, "%llx-%llx %4s", &from, &to, right) == 3 && pointer >= from &&
            pointer < to)
            found = right[2] == 'x';
    fclose(maps);
    return found;
}

void check_code(uintptr_t pointer, bool code, const char *what) {
    if (!pointer) reject("%s is NULL", what);
    int executable = is_executable(pointer);
    if (executable != -2 && executable != code)
        reject("%s points to %s, not to %s", what,
               executable < 0 ? "no memory" : executable ? "code" : "data", code ? "code" : "data");
}

static int check_int(const char *name, int64_t value, int64_t least, int64_t most) {
    if (value >= least && value <= most) return 0;
    if (value > INT32_MAX / 4 || value < INT32_MIN / 4)
        reject("%s=%lld: a float or pointer where an int is expected", name, (long long)value);
    return refuse("%s=%lld is not in %lld..%lld", name, (long long)value, (long long)least,
                  (long long)most);
}

static int check_float(const char *name, float value, float least, float most) {
    if (isnan(value)) reject("%s is NaN", name);
    if (fpclassify(value) == FP_SUBNORMAL)
        reject("%s=%g: an int or pointer where a float is expected", name, (double)value);
    if (value >= least && value <= most) return 0;
    return refuse("%s=%g is not in %g..%g", name, (double)value, (double)least, (double)most);
}

int check_sampling(const Sampling *sampling) {
    return check_int("top_k", sampling->top_k, -1, 1 << 20) ||
                   check_float("top_p", sampling->top_p, 0, 1) ||
                   check_float("temperature", sampling->temperature, 0, 10) ||
                   check_float("repeat_penalty", sampling->repeat_penalty, 0.01f, 10) ||
                   check_float("frequency_penalty", sampling->frequency_penalty, -2, 2) ||
                   check_float("presence_penalty", sampling->presence_penalty, -2, 2) ||
                   check_int("mirostat", sampling->mirostat, 0, 2) ||
                   check_float("mirostat_tau", sampling->mirostat_tau, 0.01f, 100) ||
                   check_float("mirostat_eta", sampling->mirostat_eta, 0.0001f, 1)
               ? -1
               : 0;
}

Sampling sampling_of_param(const RKLLMParam *param) {
    return (Sampling){param->top_k,
                      param->top_p,
                      param->temperature,
                      param->repeat_penalty,
                      param->frequency_penalty,
                      param->presence_penalty,
                      param->mirostat,
                      param->mirostat_tau,
                      param->mirostat_eta};
}

static int check_extend(const RKLLMExtendParam *extend) {
    for (size_t i = 0; i < sizeof extend->reserved; i++)
        if (extend->reserved[i]) reject("extend_param.reserved[%zu] is not 0", i);
    if (check_int("extend_param.base_domain_id", extend->base_domain_id, 0, 15)) return -1;
#if HAS_CPUS
    if (extend->embed_flash != 0 && extend->embed_flash != 1)
        reject("extend_param.embed_flash=%d", extend->embed_flash);
    if (!extend->enabled_cpus_mask || extend->enabled_cpus_mask > 0xFF)
        reject("extend_param.enabled_cpus_mask=0x%x", extend->enabled_cpus_mask);
    int cpus = __builtin_popcount(extend->enabled_cpus_mask);
    if (extend->enabled_cpus_num != cpus)
        return refuse("extend_param.enabled_cpus_num=%d, but the mask 0x%x has %d bits",
                      extend->enabled_cpus_num, extend->enabled_cpus_mask, cpus);
#endif
#if HAS_BATCH
    if (extend->use_cross_attn != 0 && extend->use_cross_attn != 1)
        reject("extend_param.use_cross_attn=%d", extend->use_cross_attn);
    if (extend->n_batch < 1 || extend->n_batch > 100) {
        log_line('E', "The n_batch must be between 1 and 100, but got %d", extend->n_batch);
        return refuse("extend_param.n_batch=%d", extend->n_batch);
    }
#endif
    return 0;
}

int check_param(const RKLLMParam *param) {
    check_readable(param, "param");
    check_readable(param->model_path, "model_path");
    check_bool(&param->skip_special_token, "skip_special_token");
    check_bool(&param->is_async, "is_async");
#if HAS_RUN_SAMPLING
    check_bool(&param->ignore_eos_token, "ignore_eos_token");
#else
    check_readable(param->img_start, "img_start");
    check_readable(param->img_end, "img_end");
    check_readable(param->img_content, "img_content");
#endif
    Sampling sampling = sampling_of_param(param);
    if (check_sampling(&sampling) || check_extend(&param->extend_param)) return -1;
#if HAS_CPUS
    if (check_int("n_keep", param->n_keep, -1, 1 << 20)) return -1;
#endif
    if (param->max_new_tokens == 0) return refuse("max_new_tokens=0");
    return check_int("max_context_len", param->max_context_len, 1, 1 << 24) ||
                   check_int("max_new_tokens", param->max_new_tokens, -1, 1 << 24)
               ? -1
               : 0;
}

static int check_floats(const float *values, size_t count, const char *what) {
    check_readable(values, what);
    if (!count) return refuse("%s has no elements", what);
    for (size_t i = 0; i < count; i++)
        if (!isfinite(values[i])) return refuse("%s[%zu] is not finite", what, i);
    return 0;
}

static int check_tokens(const RKLLMTokenInput *tokens, int64_t vocab_size) {
    check_readable(tokens->input_ids, "token_input.input_ids");
    if (!tokens->n_tokens || tokens->n_tokens > 1 << 24)
        return refuse("token_input.n_tokens=%zu", tokens->n_tokens);
    for (size_t i = 0; i < tokens->n_tokens; i++)
        if (tokens->input_ids[i] < 0 || tokens->input_ids[i] >= vocab_size)
            return refuse("token_input.input_ids[%zu]=%d is not in 0..%lld", i,
                          tokens->input_ids[i], (long long)vocab_size - 1);
    return 0;
}

#if HAS_IMAGES
static int check_pixels(const char *what, size_t count, size_t width, size_t height) {
    if (!count || count > 256) return refuse("%s: %zu of them", what, count);
    if (!width || !height || width > 1 << 16 || height > 1 << 16)
        return refuse("%s: %zu x %zu pixels", what, width, height);
    return 0;
}
#endif

#if HAS_RUN_SAMPLING
static int check_multimodal(const RKLLMInput *input, size_t embd_size, size_t outputs) {
    __typeof__(&input->multimodal_input) multi = &input->multimodal_input;
    check_readable(multi->prompt, "multimodal_input.prompt");
    if (!multi->image.n_image && !multi->video.n_video)
        return refuse("multimodal_input has neither an image nor a video");
    if (multi->image.n_image) {
        check_readable(multi->image.image_start, "multimodal_input.image.image_start");
        check_readable(multi->image.image_end, "multimodal_input.image.image_end");
        check_readable(multi->image.image_content, "multimodal_input.image.image_content");
        if (check_pixels("multimodal_input.image", multi->image.n_image, multi->image.image_width,
                         multi->image.image_height) ||
            check_floats(multi->image.image_embed,
                         multi->image.n_image * multi->image.n_image_tokens * embd_size * outputs,
                         "multimodal_input.image.image_embed"))
            return -1;
    }
    if (multi->video.n_video) {
        check_readable(multi->video.video_start, "multimodal_input.video.video_start");
        check_readable(multi->video.video_end, "multimodal_input.video.video_end");
        check_readable(multi->video.video_content, "multimodal_input.video.video_content");
        if (check_pixels("multimodal_input.video", multi->video.n_video, multi->video.frame_width,
                         multi->video.frame_height) ||
            check_floats(multi->video.video_embed,
                         multi->video.n_video * multi->video.n_frame_per_video *
                             multi->video.n_frame_tokens * embd_size,
                         "multimodal_input.video.video_embed"))
            return -1;
    }
    return 0;
}
#else
static int check_multimodal(const RKLLMInput *input, size_t embd_size, size_t outputs) {
    __typeof__(&input->multimodal_input) multi = &input->multimodal_input;
    size_t images = 1;
    check_readable(multi->prompt, "multimodal_input.prompt");
#if HAS_IMAGES
    images = multi->n_image;
    if (check_pixels("multimodal_input", images, multi->image_width, multi->image_height))
        return -1;
#endif
    return check_floats(multi->image_embed, images * multi->n_image_tokens * embd_size * outputs,
                        "multimodal_input.image_embed");
}
#endif

int check_input(const RKLLMInput *input, const Config *config) {
    int64_t vocab_size = config->vocab_size, embd_size = config->embd_size;
    check_readable(input, "rkllm_input");
#if HAS_ROLE
    check_readable(input->role, "rkllm_input.role");
    check_bool(&input->enable_thinking, "rkllm_input.enable_thinking");
    if (strcmp(input->role, "user") && strcmp(input->role, "tool"))
        return refuse("rkllm_input.role=\"%.16s\" is neither user nor tool", input->role);
#endif
    switch (input->input_type) {
    case RKLLM_INPUT_PROMPT:
        check_readable(input->prompt_input, "rkllm_input.prompt_input");
        return *input->prompt_input ? 0 : refuse("rkllm_input.prompt_input is empty");
    case RKLLM_INPUT_TOKEN:
        return check_tokens(&input->token_input, vocab_size);
    case RKLLM_INPUT_EMBED:
        return check_floats(input->embed_input.embed,
                            input->embed_input.n_tokens * (size_t)embd_size,
                            "embed_input.embed");
    case RKLLM_INPUT_MULTIMODAL:
        return check_multimodal(input, (size_t)embd_size, (size_t)config->image_outputs);
    }
    reject("rkllm_input.input_type=%d", (int)input->input_type);
}

static int check_cache(const RKLLMPromptCacheParam *cache) {
    check_readable(cache, "prompt_cache_params");
    if (cache->save_prompt_cache != 0 && cache->save_prompt_cache != 1)
        reject("save_prompt_cache=%d", cache->save_prompt_cache);
    if (!cache->save_prompt_cache) return 0;
    check_readable(cache->prompt_cache_path, "prompt_cache_path");
    if (*cache->prompt_cache_path != '/')
        return refuse("the path %s of a prompt cache is not absolute", cache->prompt_cache_path);
    return 0;
}

int check_infer(const RKLLMInferParam *infer) {
    check_readable(infer, "rkllm_infer_params");
    if ((unsigned)infer->mode > RKLLM_INFER_GET_LAST_HIDDEN_LAYER + HAS_LOGITS)
        reject("rkllm_infer_params.mode=%d", (int)infer->mode);
    if (infer->lora_params) {
        check_readable(infer->lora_params, "lora_params");
        check_readable(infer->lora_params->lora_adapter_name, "lora_adapter_name");
    }
    if (infer->prompt_cache_params && check_cache(infer->prompt_cache_params)) return -1;
#if HAS_HISTORY
    if (infer->keep_history != 0 && infer->keep_history != 1)
        reject("keep_history=%d", infer->keep_history);
#endif
#if HAS_RUN_SAMPLING
    if (infer->sampling_params) check_readable(infer->sampling_params, "sampling_params");
    if (check_int("max_new_tokens", infer->max_new_tokens, -1, 1 << 24)) return -1;
#endif
    return 0;
}
