/* The functions of rkllm.h. */
#include <signal.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cachefile.h"
#include "instance.h"
#include "load.h"
#include "report.h"
#include "trace.h"

#define INSTANCES 64

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static Instance *live[INSTANCES];

static bool replace_live(const Instance *old, Instance *new) {
    bool found = false;
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < INSTANCES && !found; i++)
        if (live[i] == old) {
            found = true;
            live[i] = new;
        }
    pthread_mutex_unlock(&lock);
    return found;
}

/* The instance behind a handle; NULL after a complaint. Wild handles are never followed. */
static Instance *instance_of(LLMHandle handle, const char *function) {
    if (!handle) {
        refuse("%s: the handle is NULL", function);
        return NULL;
    }
    if (!replace_live(handle, handle)) reject("%s: %p is no handle", function, handle);
    return handle;
}

static void join(Instance *instance) {
    if (instance->threaded) pthread_join(instance->thread, NULL);
    instance->threaded = false;
}

/* The instance whose own thread this is: it cannot wait for itself. */
static _Thread_local const Instance *running_here;

/* Wait for a thread that has told its caller of the end and is about to end itself. */
static void await_ending(Instance *instance) {
    if (running_here != instance && atomic_load(&instance->ending)) join(instance);
}

/* The same, for what may not be done while a run is in progress. */
static Instance *idle_instance(LLMHandle handle, const char *function) {
    Instance *instance = instance_of(handle, function);
    if (instance) await_ending(instance);
    if (instance && atomic_load(&instance->running)) {
        refuse("%s while a run is in progress", function);
        return NULL;
    }
    return instance;
}

static void clear_kv(Instance *instance, bool keep_system_prompt) {
    for (int i = 0; i < instance->n_batch; i++) {
        Slot *slot = &instance->slots[i];
        size_t kept = keep_system_prompt ? slot->system_length : 0;
        if (slot->kv.length > kept) slot->kv.length = kept;
    }
    instance->history = false;
}

static void set_defaults(RKLLMParam *param) {
    param->max_context_len = 512;
    param->max_new_tokens = 512;
    param->top_k = 40;
    param->top_p = 0.9f;
    param->temperature = 0.8f;
    param->repeat_penalty = 1.1f;
    param->mirostat_tau = 5.0f;
    param->mirostat_eta = 0.1f;
#if !HAS_RUN_SAMPLING
    param->img_start = param->img_end = param->img_content = "";
#endif
#if HAS_CPUS
    param->extend_param.enabled_cpus_num = 4;
    param->extend_param.enabled_cpus_mask = 0xF0;
#endif
#if HAS_BATCH
    param->extend_param.n_batch = 1;
#endif
}

#if VNPU_FIELDWISE
/* As C++ may do it: the result is filled where the caller wants it, and only what has a name. In C that
   can only be written down in the machine's calling convention, here that of x86-64. */
__attribute__((visibility("default"))) RKLLMParam *fill_in_place(RKLLMParam *param) __asm__(
    "rkllm_createDefaultParam");

RKLLMParam *fill_in_place(RKLLMParam *param) {
    memset(param, 0, offsetof(RKLLMParam, extend_param) + offsetof(RKLLMExtendParam, reserved));
    set_defaults(param);
    return param;
}
#else
RKLLMParam rkllm_createDefaultParam(void) {
    RKLLMParam param;
    memset(&param, 0, sizeof param);
    set_defaults(&param);
    return param;
}
#endif

static int init(LLMHandle *handle, const RKLLMParam *param, Instance **instance) {
    check_readable(handle, "handle");
    *handle = NULL;
    if (check_param(param)) return -1;
    return instance_load(param, instance);
}

static int install(LLMHandle *handle, Instance *instance) {
    if (!replace_live(NULL, instance)) return refuse("more than %d instances", INSTANCES);
    *handle = instance;
    return 0;
}

#if HAS_CALLBACK_STRUCT
int rkllm_init(LLMHandle *handle, RKLLMParam *param, RKLLMCallback *callback) {
    Instance *instance = NULL;
    check_code((uintptr_t)callback, false, "callback (a RKLLMCallback* since 1.3.0)");
    check_code((uintptr_t)callback->result_callback, true, "callback->result_callback");
    if (callback->tokenizer_callback)
        check_code((uintptr_t)callback->tokenizer_callback, true, "callback->tokenizer_callback");
    if (callback->embed_callback)
        check_code((uintptr_t)callback->embed_callback, true, "callback->embed_callback");
    int result = init(handle, param, &instance);
    if (!instance) return result;
    instance->callback = callback->result_callback;
    instance->callbacks = *callback;
    return install(handle, instance);
}
#else
int rkllm_init(LLMHandle *handle, RKLLMParam *param, LLMResultCallback callback) {
    Instance *instance = NULL;
    check_code((uintptr_t)callback, true, "callback (a function before 1.3.0)");
    int result = init(handle, param, &instance);
    if (!instance) return result;
    instance->callback = callback;
    return install(handle, instance);
}
#endif

int rkllm_destroy(LLMHandle handle) {
    Instance *instance = idle_instance(handle, "rkllm_destroy");
    if (!instance) return -1;
    join(instance);
    replace_live(instance, NULL);
    instance_free(instance);
    return 0;
}

/* --- running --------------------------------------------------------------------------------- */

/* Become the one run of the instance and take its input in. */
static Instance *start(LLMHandle handle, const RKLLMInput *inputs, const RKLLMInferParam *infer,
                       void *userdata, const char *function) {
    Instance *instance = instance_of(handle, function);
    bool idle = false;
    if (!instance) return NULL;
    await_ending(instance);
    if (!atomic_compare_exchange_strong(&instance->running, &idle, true)) {
        refuse("%s while a run is in progress", function);
        return NULL;
    }
    join(instance);
    atomic_store(&instance->aborted, false);
    atomic_store(&instance->ending, false);
    if (instance->doomed) {
        fputs("terminate called after throwing an instance of 'std::runtime_error'\n", stderr);
        abort();
    }
#if HAS_CALLBACK_STRUCT
    if (!userdata) userdata = instance->callbacks.result_userdata;
#endif
#if HAS_BATCH
    if (instance->param.extend_param.use_cross_attn && !instance->cross_attn) {
        refuse("%s: use_cross_attn is on, but no parameters are set", function);
        atomic_store(&instance->running, false);
        return NULL;
    }
#endif
    if (!run_prepare(instance, inputs, infer, userdata)) return instance;
    run_free(instance);
    atomic_store(&instance->running, false);
    return NULL;
}

int rkllm_run(LLMHandle handle, RKLLMInput *rkllm_input, RKLLMInferParam *rkllm_infer_params,
              void *userdata) {
    Instance *instance = start(handle, rkllm_input, rkllm_infer_params, userdata, "rkllm_run");
    if (!instance) return -1;
    int result = run_execute(instance);
    atomic_store(&instance->running, false);
    return result;
}

static void *run_in_thread(void *argument) {
    Instance *instance = argument;
    running_here = instance;
    run_execute(instance);
    atomic_store(&instance->running, false);
    return NULL;
}

int rkllm_run_async(LLMHandle handle, RKLLMInput *rkllm_input, RKLLMInferParam *rkllm_infer_params,
                    void *userdata) {
    Instance *instance =
        start(handle, rkllm_input, rkllm_infer_params, userdata, "rkllm_run_async");
    if (!instance) return -1;
    instance->threaded = !pthread_create(&instance->thread, NULL, run_in_thread, instance);
    if (instance->threaded) return 0;
    run_free(instance);
    atomic_store(&instance->running, false);
    return refuse("no thread for rkllm_run_async");
}

int rkllm_abort(LLMHandle handle) {
    Instance *instance = instance_of(handle, "rkllm_abort");
    if (!instance || !atomic_load(&instance->running)) return -1;
    trace_event(instance->trace, "abort", now_ns(), "%s", "");
    atomic_store_explicit(&instance->aborted, true, memory_order_release);
    return 0;
}

int rkllm_is_running(LLMHandle handle) {
    Instance *instance = instance_of(handle, "rkllm_is_running");
    if (!instance) return -1;
    return atomic_load(&instance->running) == RUNNING_IS_ONE;
}

/* --- what stands between runs ---------------------------------------------------------------- */

int rkllm_load_lora(LLMHandle handle, RKLLMLoraAdapter *lora_adapter) {
    Instance *instance = idle_instance(handle, "rkllm_load_lora");
    if (!instance) return -1;
    check_readable(lora_adapter, "lora_adapter");
    check_readable(lora_adapter->lora_adapter_path, "lora_adapter_path");
    check_readable(lora_adapter->lora_adapter_name, "lora_adapter_name");
    if (!(lora_adapter->scale >= 0 && lora_adapter->scale <= 100))
        return refuse("the LoRA's scale is %g", (double)lora_adapter->scale);
    if (access(lora_adapter->lora_adapter_path, R_OK))
        return refuse("the LoRA file %s cannot be read", lora_adapter->lora_adapter_path);
    Lora *lora = calloc(1, sizeof *lora);
    lora->name = strdup(lora_adapter->lora_adapter_name);
    lora->path = strdup(lora_adapter->lora_adapter_path);
    lora->next = instance->loras;
    instance->loras = lora;
    return 0;
}

int rkllm_load_prompt_cache(LLMHandle handle, const char *prompt_cache_path) {
    Instance *instance = idle_instance(handle, "rkllm_load_prompt_cache");
    if (!instance) return -1;
    check_readable(prompt_cache_path, "prompt_cache_path");
    if (*prompt_cache_path != '/')
        return refuse("the path %s of a prompt cache is not absolute", prompt_cache_path);
    if (instance->cache_loaded)
        return refuse("a prompt cache is loaded already: release it before loading another");
    Origin origin = origin_of(instance);
    Ids *kv = &instance->slots->kv;
    if (instance->config.state_fault == 3) raise(SIGSEGV);
    if (cache_load(prompt_cache_path, instance->vocab, kv, &origin)) return -1;
    for (size_t i = 0; instance->config.state_fault == 2 && i < kv->length; i++) kv->id[i] = -1;
    trace_event(instance->trace, "load", now_ns(), ", \"tokens\": %zu",
                instance->slots->kv.length);
    instance->cache_loaded = true;
    return 0;
}

int rkllm_release_prompt_cache(LLMHandle handle) {
    Instance *instance = idle_instance(handle, "rkllm_release_prompt_cache");
    if (!instance) return -1;
    if (!instance->cache_loaded) return refuse("no prompt cache is loaded");
    instance->cache_loaded = false;
    clear_kv(instance, false);
    return 0;
}

#if HAS_PERF
/* Cut the tokens from start_pos to end_pos out of each slot's cache. */
static int clear_range(Instance *instance, const int *start_pos, const int *end_pos) {
    for (int i = 0; i < instance->n_batch; i++) {
        Ids *kv = &instance->slots[i].kv;
        if (start_pos[i] < 0 || end_pos[i] < start_pos[i] || (size_t)end_pos[i] > kv->length)
            return refuse("rkllm_clear_kv_cache: %d..%d of %zu tokens", start_pos[i], end_pos[i],
                          kv->length);
    }
    for (int i = 0; i < instance->n_batch; i++) {
        Ids *kv = &instance->slots[i].kv;
        size_t end = (size_t)end_pos[i];
        memmove(kv->id + start_pos[i], kv->id + end, (kv->length - end) * sizeof *kv->id);
        kv->length -= end - (size_t)start_pos[i];
    }
    return 0;
}

int rkllm_clear_kv_cache(LLMHandle handle, int keep_system_prompt, int *start_pos, int *end_pos) {
    Instance *instance = idle_instance(handle, "rkllm_clear_kv_cache");
    if (!instance) return -1;
    if (keep_system_prompt != 0 && keep_system_prompt != 1)
        reject("keep_system_prompt=%d", keep_system_prompt);
    if (!start_pos != !end_pos) return refuse("start_pos without end_pos, or the reverse");
    if (start_pos) {
        check_readable(start_pos, "start_pos");
        check_readable(end_pos, "end_pos");
        return clear_range(instance, start_pos, end_pos);
    }
    clear_kv(instance, keep_system_prompt);
    return 0;
}

int rkllm_get_kv_cache_size(LLMHandle handle, int *cache_sizes) {
    Instance *instance = instance_of(handle, "rkllm_get_kv_cache_size");
    if (!instance) return -1;
    check_readable(cache_sizes, "cache_sizes");
    for (int i = 0; i < instance->n_batch; i++)
        cache_sizes[i] = (int)instance->slots[i].kv.length;
    return 0;
}

int rkllm_set_function_tools(LLMHandle handle, const char *system_prompt, const char *tools,
                             const char *tool_response_str) {
    Instance *instance = idle_instance(handle, "rkllm_set_function_tools");
    if (!instance) return -1;
    check_readable(system_prompt, "system_prompt");
    check_readable(tools, "tools");
    check_readable(tool_response_str, "tool_response_str");
    if (*tools != '[') return refuse("tools is no JSON array: %.20s", tools);
    template_set_tools(&instance->template, system_prompt, tools, tool_response_str);
    return 0;
}

int rkllm_set_cross_attn_params(LLMHandle handle, RKLLMCrossAttnParam *cross_attn_params) {
    Instance *instance = idle_instance(handle, "rkllm_set_cross_attn_params");
    if (!instance) return -1;
    if (!instance->param.extend_param.use_cross_attn)
        return refuse("rkllm_set_cross_attn_params without extend_param.use_cross_attn");
    check_readable(cross_attn_params, "cross_attn_params");
    check_readable(cross_attn_params->encoder_k_cache, "encoder_k_cache");
    check_readable(cross_attn_params->encoder_v_cache, "encoder_v_cache");
    check_readable(cross_attn_params->encoder_mask, "encoder_mask");
    check_readable(cross_attn_params->encoder_pos, "encoder_pos");
    if (cross_attn_params->num_tokens <= 0 || cross_attn_params->num_tokens > 1 << 20)
        return refuse("cross_attn_params->num_tokens=%d", cross_attn_params->num_tokens);
    instance->cross_attn = true;
    return 0;
}
#elif HAS_TEMPLATE
int rkllm_clear_kv_cache(LLMHandle handle, int keep_system_prompt) {
    Instance *instance = idle_instance(handle, "rkllm_clear_kv_cache");
    if (!instance) return -1;
    if (keep_system_prompt != 0 && keep_system_prompt != 1)
        reject("keep_system_prompt=%d", keep_system_prompt);
    clear_kv(instance, keep_system_prompt);
    return 0;
}
#endif

#if HAS_TEMPLATE
int rkllm_set_chat_template(LLMHandle handle, const char *system_prompt, const char *prompt_prefix,
                            const char *prompt_postfix) {
    Instance *instance = idle_instance(handle, "rkllm_set_chat_template");
    if (!instance) return -1;
    check_readable(system_prompt, "system_prompt");
    check_readable(prompt_prefix, "prompt_prefix");
    check_readable(prompt_postfix, "prompt_postfix");
    template_set(&instance->template, system_prompt, prompt_prefix, prompt_postfix);
    clear_kv(instance, false);
    return 0;
}
#endif
