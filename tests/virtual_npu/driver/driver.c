/* A caller that was compiled against one release's header, for any library:
 *     driver LIBRARY MODEL PROMPT
 * prints what the callback is given, then "finished", and returns 0 when all went well. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "release.h"

static int finished;

static
#if CALLBACK_ANSWERS
    int
#else
    void
#endif
    on_result(RKLLMResult *result, void *userdata, LLMCallState state) {
    if (state == RKLLM_RUN_FINISH) finished = userdata == &finished;
    if (state == RKLLM_RUN_NORMAL && result->text) printf("%s", result->text);
#if CALLBACK_ANSWERS
    return 0;
#endif
}

static void *symbol(void *library, const char *name) {
    void *found = dlsym(library, name);
    if (!found) {
        fprintf(stderr, "driver: no %s\n", name);
        exit(4);
    }
    return found;
}

#define FUNCTION(name) __typeof__(&name) p_##name = symbol(library, #name)

/* Set what a careful caller sets: every parameter that its release has. */
static void set_parameters(RKLLMParam *param, const char *model) {
    param->model_path = model;
    param->max_context_len = 1024;
    param->max_new_tokens = 64;
    param->top_k = 20;
    param->top_p = 0.95f;
    param->temperature = 0.7f;
    param->repeat_penalty = 1.05f;
    param->frequency_penalty = 0.0f;
    param->presence_penalty = 0.0f;
    param->mirostat = 0;
    param->mirostat_tau = 5.0f;
    param->mirostat_eta = 0.1f;
    param->skip_special_token = true;
    param->is_async = false;
#if HAS_CPUS
    param->n_keep = 0;
    param->extend_param.embed_flash = 1;
    param->extend_param.enabled_cpus_num = 4;
    param->extend_param.enabled_cpus_mask = 0xF0;
#endif
#if HAS_BATCH
    param->extend_param.n_batch = 1;
#endif
}

/* A value in memory whose surroundings are not zero, so that a longer struct is seen to be one. */
static void *surrounded(size_t size) {
    char *memory = malloc(size + 512);
    memset(memory, 0xA5, size + 512);
    return memset(memory, 0, size);
}

static int run(void *library, LLMHandle handle, const char *prompt) {
    FUNCTION(rkllm_run);
    RKLLMInput *input = surrounded(sizeof *input);
    RKLLMInferParam *infer = surrounded(sizeof *infer);
    input->input_type = RKLLM_INPUT_PROMPT;
    input->prompt_input = prompt;
#if HAS_ROLE
    input->role = "user";
#endif
    int result = p_rkllm_run(handle, input, infer, &finished);
    free(input);
    free(infer);
    return result;
}

int main(int count, char **arguments) {
    if (count != 4) return 2;
    void *library = dlopen(arguments[1], RTLD_NOW);
    if (!library) {
        fprintf(stderr, "driver: %s\n", dlerror());
        return 4;
    }
    FUNCTION(rkllm_createDefaultParam);
    FUNCTION(rkllm_init);
    FUNCTION(rkllm_destroy);
    LLMHandle handle = NULL;
    RKLLMParam *param = surrounded(sizeof *param);
    *param = p_rkllm_createDefaultParam();
    set_parameters(param, arguments[2]);
#if HAS_CALLBACK_STRUCT
    RKLLMCallback callback = {.result_callback = on_result};
    if (p_rkllm_init(&handle, param, &callback) || !handle) return 3;
#else
    if (p_rkllm_init(&handle, param, on_result) || !handle) return 3;
#endif
    free(param);
    if (run(library, handle, arguments[3]) || !finished) return 3;
    if (p_rkllm_destroy(handle)) return 3;
    puts("finished");
    return 0;
}
