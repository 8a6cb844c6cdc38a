#include "load.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "memory.h"
#include "report.h"
#include "trace.h"

/* Tools find a runtime's version by this text in its file. */
__attribute__((used)) static const char version_text[] =
#if HAS_CPUS
    "RKLLM SDK (version: " VNPU_REPORTED
    " | target: Linux | build: 00000000 2025-01-01 00:00:00)";
#else
    "rknn llm lib version: " VNPU_REPORTED " (00000000 build: 2025-01-01 00:00:00)";
#endif

/* "1.2.3" as 10203; what is no number counts as 0. */
static int version_number(const char *text) {
    int major = 0, minor = 0, patch = 0;
    sscanf(text, "%d.%d.%d", &major, &minor, &patch);
    return (major * 100 + minor) * 100 + patch;
}

static void log_greeting(const Config *config, const char *path) {
    log_line('I', "rkllm-runtime version: %s, rknpu driver version: %s, platform: %s",
             VNPU_REPORTED, config->driver, config->board);
    if (version_number(config->driver) < version_number("0.9.6"))
        log_line('W', "Your rknpu driver version is too low, please upgrade to 0.9.7.");
    log_line('I', "loading rkllm model from %s", path);
}

/* One line of the key `log`: a name for one of the runtime's complaints, or the line itself. */
static void log_named(const char *name) {
    if (!strcmp(name, "malloc"))
        log_rknn("failed to malloc npu memory, size: 4059037696, flags: 0x2");
    else if (!strcmp(name, "load"))
        log_line('E', "load model file error!");
    else if (!strcmp(name, "rknn_init"))
        log_line('E', "rknn_init fail! ret=-1");
    else
        puts(name);
}

void log_scripted(const char *names) {
    char *copy = strdup(names), *rest = copy, *name;
    while ((name = strsep(&rest, "|")))
        if (*name) log_named(name);
    free(copy);
}

/* Whether `release` is one of those in `list`, which are separated by commas. */
static bool is_listed(const char *list, const char *release) {
    size_t length = strlen(release);
    for (const char *at = list; (at = strstr(at, release)); at += length)
        if ((at == list || at[-1] == ',') && (at[length] == ',' || !at[length])) return true;
    return false;
}

static int check_limits(const RKLLMParam *param, const Config *config) {
    if (*config->runtimes && !is_listed(config->runtimes, VNPU_REPORTED)) {
        log_line('E', "invalid rkllm model!");
        return -1;
    }
    log_line('I',
             "rkllm-toolkit version: %s, max_context_limit: %lld, npu_core_num: %lld, "
             "target_platform: %s, model_dtype: %s",
             config->toolkit, (long long)config->max_context, (long long)config->npu_core_num,
             config->platform, config->dtype);
    if (strncmp(config->platform, config->board, 6)) {
        log_line('E', "target_platform does not match: the model is for %s, this is %s",
                 config->platform, config->board);
        return -1;
    }
    if (version_number(config->toolkit) > version_number(VNPU_RELEASE)) {
        log_line('E', "the model was made by toolkit %s, which is newer than this runtime",
                 config->toolkit);
        return -1;
    }
    if (param->max_context_len > config->max_context) {
        log_line('E', "max_context_len[%d] must be less than or equal to max_context_limit[%lld]",
                 param->max_context_len, (long long)config->max_context);
        return -1;
    }
    if (config->eos_id >= config->vocab_size) return refuse("eos_id is not below vocab_size");
    if (config->yes_id >= config->vocab_size || config->no_id >= config->vocab_size)
        return refuse("yes_id or no_id is not below vocab_size");
    return strlen(config->eos) > 64 ? refuse("eos is longer than 64 bytes") : 0;
}

static void log_cpus(const RKLLMParam *param) {
#if HAS_CPUS
    char list[64] = "", *end = list;
    for (int cpu = 0; cpu < 8; cpu++)
        if (param->extend_param.enabled_cpus_mask >> cpu & 1)
            end += sprintf(end, "%s%d", end == list ? "" : ", ", cpu);
    log_line('I', "Enabled cpus: [%s]", list);
#else
    (void)param;
#endif
}

static void trace_init(const Instance *instance) {
    const RKLLMParam *param = &instance->param;
    int flash = 0, cpus = 0;
    unsigned mask = 0;
#if HAS_CPUS
    flash = param->extend_param.embed_flash;
    cpus = param->extend_param.enabled_cpus_num;
    mask = param->extend_param.enabled_cpus_mask;
#endif
    trace_event(instance->trace, "init", now_ns(),
                ", \"max_context_len\": %d, \"base_domain_id\": %d, \"embed_flash\": %d, "
                "\"enabled_cpus_num\": %d, \"enabled_cpus_mask\": %u",
                param->max_context_len, param->extend_param.base_domain_id, flash, cpus, mask);
}

static Instance *instance_new(const RKLLMParam *param, const Config *config) {
    Instance *instance = calloc(1, sizeof *instance);
    instance->config = *config;
    instance->param = *param;
    instance->param.model_path = NULL; /* the caller's memory ends with rkllm_init */
#if !HAS_RUN_SAMPLING
    instance->param.img_start = strdup(param->img_start);
    instance->param.img_end = strdup(param->img_end);
    instance->param.img_content = strdup(param->img_content);
#endif
    instance->vocab =
        vocab_new((size_t)config->vocab_size, (int32_t)config->eos_id, config->eos);
    instance->n_batch = 1;
    instance->memory = -1;
#if HAS_BATCH
    instance->n_batch = param->extend_param.n_batch;
#endif
    instance->slots = calloc((size_t)instance->n_batch, sizeof *instance->slots);
    instance->results = calloc((size_t)instance->n_batch, sizeof *instance->results);
    instance->template.think_template = config->think_template;
    instance->trace = trace_open(config->trace);
    return instance;
}

static void play_init_faults(const Config *config) {
    if (config->load_ms) sleep_until(now_ns() + config->load_ms * 1000000);
    log_scripted(config->log);
    if (config->hang_in_init)
        for (;;) pause();
    if (config->crash_in_init) {
        signal(SIGSEGV, SIG_DFL);
        raise(SIGSEGV);
    }
}

/* A foreign file: what is reported of the runtime is a handle that dies at the first run. */
static int load_foreign(const RKLLMParam *param, Config *config, Instance **instance) {
    bool refused = config->magic_bad == 2;
    log_line('E', "invalid rknn llm model magic");
    if (refused) {
        config_free(config);
        return -1;
    }
    *instance = instance_new(param, config);
    (*instance)->doomed = true;
    return 0;
}

int instance_load(const RKLLMParam *param, Instance **instance) {
    Config config = config_default();
    ModelFile read = config_read(&config, param->model_path);
    log_greeting(&config, param->model_path);
    if (read == MODEL_READ) play_init_faults(&config);
    if (read == MODEL_MISSING) log_line('E', "open model file %s failed", param->model_path);
    if (read == MODEL_FOREIGN || config.magic_bad) return load_foreign(param, &config, instance);
    if (read != MODEL_READ || config.init_error || config.init_null ||
        check_limits(param, &config)) {
        int result = read == MODEL_READ && config.init_null ? 0 : -1;
        config_free(&config);
        return result;
    }
    int memory = memory_take(&config, param->extend_param.base_domain_id);
    if (memory == -1) {
        config_free(&config);
        return -1;
    }
    log_cpus(param);
    *instance = instance_new(param, &config);
    (*instance)->memory = memory;
    trace_init(*instance);
    return 0;
}

static void free_markers(Instance *instance) {
#if HAS_RUN_SAMPLING
    (void)instance;
#else
    free((void *)(uintptr_t)instance->param.img_start);
    free((void *)(uintptr_t)instance->param.img_end);
    free((void *)(uintptr_t)instance->param.img_content);
#endif
}

static void free_loras(Instance *instance) {
    while (instance->loras) {
        Lora *lora = instance->loras;
        instance->loras = lora->next;
        free(lora->name);
        free(lora->path);
        free(lora);
    }
}

void instance_free(Instance *instance) {
    run_free(instance);
    if (instance->held_count)
        log_line('W', "%zu output buffers were never released", instance->held_count);
    for (size_t i = 0; i < instance->held_count; i++) free(instance->held[i]);
    free(instance->held);
    for (int i = 0; i < instance->n_batch; i++) ids_free(&instance->slots[i].kv);
    free(instance->slots);
    free(instance->results);
    free_loras(instance);
    free_markers(instance);
    template_free(&instance->template);
    vocab_free(instance->vocab);
    config_free(&instance->config);
    trace_event(instance->trace, "destroy", now_ns(), "%s", "");
    if (instance->trace >= 0) close(instance->trace);
    if (instance->memory >= 0) close(instance->memory);
    free(instance);
}
