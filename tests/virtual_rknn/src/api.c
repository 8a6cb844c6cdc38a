/* The functions of rknn_api.h. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "embed.h"
#include "report.h"
#include "rknn_api.h"
#include "script.h"
#include "trace.h"

#define CONTEXTS 4096 /* of one process, destroyed ones included */
#define MOST_OUTPUTS 8
#define FIRST_CONTEXT 0x52000000u

/* What the vendor's header gives on 64 bit; all offsets are compared in the binding's own tests. */
_Static_assert(sizeof(rknn_tensor_attr) == 376, "rknn_tensor_attr");
#if UINTPTR_MAX > 0xFFFFFFFFu
_Static_assert(sizeof(rknn_input) == 32 && sizeof(rknn_output) == 24, "rknn_input, rknn_output");
#endif

enum { FAIL = -1, MODEL = -6, PARAM = -5, INPUT = -8, OUTPUT = -9, PLATFORM = -13 };

typedef struct {
    Script script;
    int trace;
    uint8_t *pixels; /* of the last rknn_inputs_set; NULL: none */
    int64_t runs;
    bool ran;                   /* outputs may be got */
    float *given[MOST_OUTPUTS]; /* outputs that are not released */
    atomic_flag busy;
} Context;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static Context *live[CONTEXTS];
static size_t made; /* contexts so far: a number is not used twice */

static int64_t elements(const Context *context) {
    return context->script.tokens * context->script.embedding;
}

static void check_readable(const void *pointer, const char *what) {
    if (!pointer) reject("%s is NULL", what);
    /* The kernel looks at the memory for us and says EFAULT instead of SIGSEGV. */
    if (access(pointer, F_OK) && errno == EFAULT) reject("%s is a wild pointer %p", what, pointer);
}

/* The context behind a number, taken until `leave`: one thread at a time may use it. */
static Context *enter(rknn_context number, const char *function) {
    uint64_t index = (uint64_t)number - FIRST_CONTEXT;
    pthread_mutex_lock(&lock);
    Context *context = index < CONTEXTS ? live[index] : NULL;
    pthread_mutex_unlock(&lock);
    if (!context) reject("%s: %llx is no context", function, (unsigned long long)number);
    if (atomic_flag_test_and_set(&context->busy)) reject("%s in two threads at a time", function);
    return context;
}

static int leave(Context *context, int result) {
    atomic_flag_clear(&context->busy);
    return result;
}

static int complain(Context *context, int code, const char *what) {
    refuse("%s", what);
    return leave(context, code);
}

/* How many cores the NPU of a SoC has. */
static int cores(const char *board) {
    return !strncmp(board, "RK3588", 6) ? 3 : !strncmp(board, "RK3576", 6) ? 2 : 1;
}

/* --- Loading --------------------------------------------------------------------------------- */

static int load(Script *script, const char *path) {
    if (script_read(script, path)) {
        log_rknn("the file %s is no model", path);
        return MODEL;
    }
    if (script->load_ms) sleep_until(now_ns() + script->load_ms * 1000000);
    if (script->crash_in_init) {
        signal(SIGSEGV, SIG_DFL);
        raise(SIGSEGV);
    }
    if (strncasecmp(script->platform, script->board, 6)) {
        log_rknn("the model is for %s, this is %s", script->platform, script->board);
        return PLATFORM;
    }
    return (int)script->init_code;
}

int rknn_init(rknn_context *number, void *model, uint32_t size, uint32_t flag, void *extend) {
    check_readable(number, "context");
    check_readable(model, "model");
    if (size) reject("rknn_init: a size of %u, but the model is a path", size);
    if (flag) reject("rknn_init: flag %u", flag);
    if (extend) check_readable(extend, "extend");
    Script script;
    int code = load(&script, model);
    if (code) return code;
    pthread_mutex_lock(&lock);
    size_t index = made++;
    pthread_mutex_unlock(&lock);
    if (index >= CONTEXTS) return refuse("more than %d contexts", CONTEXTS);
    Context *context = calloc(1, sizeof *context);
    context->script = script;
    context->trace = trace_open(script.trace);
    live[index] = context;
    *number = (rknn_context)(FIRST_CONTEXT + index);
    trace_event(context->trace, "encoder_init", now_ns(), ", \"context\": %zu", index);
    return 0;
}

int rknn_destroy(rknn_context number) {
    Context *context = enter(number, "rknn_destroy");
    int leaked = 0;
    for (int i = 0; i < MOST_OUTPUTS; i++) leaked += context->given[i] != NULL;
    live[(uint64_t)number - FIRST_CONTEXT] = NULL;
    trace_event(context->trace, "encoder_destroy", now_ns(), ", \"runs\": %lld, \"leaked\": %d",
                (long long)context->runs, leaked);
    if (context->trace >= 0) close(context->trace);
    for (int i = 0; i < MOST_OUTPUTS; i++) free(context->given[i]);
    free(context->pixels);
    free(context);
    return leaked ? refuse("%d outputs were never released", leaked) : 0;
}

int rknn_set_core_mask(rknn_context number, rknn_core_mask mask) {
    Context *context = enter(number, "rknn_set_core_mask");
    int last = 1 << cores(context->script.board);
    if ((unsigned)mask >= (unsigned)last || mask == (RKNN_NPU_CORE_0 | RKNN_NPU_CORE_2) ||
        mask == (RKNN_NPU_CORE_1 | RKNN_NPU_CORE_2) || (last == 2 && mask))
        return complain(context, PARAM, "rknn_set_core_mask: this NPU has no such cores");
    trace_event(context->trace, "encoder_cores", now_ns(), ", \"mask\": %d", (int)mask);
    return leave(context, (int)context->script.mask_code);
}

/* --- What it is ------------------------------------------------------------------------------ */

static void fill_input(const Script *script, rknn_tensor_attr *attr) {
    uint32_t height = (uint32_t)script->height, width = (uint32_t)script->width;
    uint32_t nhwc[4] = {1, height, width, 3}, nchw[4] = {1, 3, height, width};
    strcpy(attr->name, "pixel");
    attr->n_dims = 4;
    memcpy(attr->dims, script->nchw ? nchw : nhwc, sizeof nhwc);
    attr->fmt = script->nchw ? RKNN_TENSOR_NCHW : RKNN_TENSOR_NHWC;
    attr->type = RKNN_TENSOR_FLOAT16;
    attr->n_elems = height * width * 3;
    attr->size = attr->n_elems * 2;
}

static void fill_output(const Script *script, rknn_tensor_attr *attr) {
    strcpy(attr->name, "vision_embeds");
    attr->n_dims = (uint32_t)script->rank;
    for (uint32_t i = 0; i + 2 < attr->n_dims; i++) attr->dims[i] = 1;
    attr->dims[attr->n_dims - 2] = (uint32_t)script->tokens;
    attr->dims[attr->n_dims - 1] = (uint32_t)script->embedding;
    attr->fmt = RKNN_TENSOR_UNDEFINED;
    attr->type = RKNN_TENSOR_FLOAT16;
    attr->n_elems = (uint32_t)(script->tokens * script->embedding);
    attr->size = attr->n_elems * 2;
}

static int query_attr(const Script *script, bool input, rknn_tensor_attr *attr) {
    uint32_t index = attr->index;
    if (index >= (input ? 1 : script->outputs)) return refuse("rknn_query: no tensor %u", index), PARAM;
    memset(attr, 0, sizeof *attr);
    attr->index = index;
    if (input)
        fill_input(script, attr);
    else
        fill_output(script, attr);
    attr->scale = 1;
    return 0;
}

static size_t size_of(rknn_query_cmd command) {
    switch (command) {
    case RKNN_QUERY_IN_OUT_NUM:
        return sizeof(rknn_input_output_num);
    case RKNN_QUERY_INPUT_ATTR:
    case RKNN_QUERY_OUTPUT_ATTR:
        return sizeof(rknn_tensor_attr);
    case RKNN_QUERY_SDK_VERSION:
        return sizeof(rknn_sdk_version);
    default:
        return 0;
    }
}

static int answer(const Script *script, rknn_query_cmd command, void *info) {
    if (command == RKNN_QUERY_IN_OUT_NUM) {
        *(rknn_input_output_num *)info = (rknn_input_output_num){1, (uint32_t)script->outputs};
        return 0;
    }
    if (command == RKNN_QUERY_SDK_VERSION) {
        rknn_sdk_version version = {"2.3.2 (virtual)", "0.9.8"};
        *(rknn_sdk_version *)info = version;
        return 0;
    }
    return query_attr(script, command == RKNN_QUERY_INPUT_ATTR, info);
}

int rknn_query(rknn_context number, rknn_query_cmd command, void *info, uint32_t size) {
    Context *context = enter(number, "rknn_query");
    check_readable(info, "info");
    if (context->script.query_code) return leave(context, (int)context->script.query_code);
    if (!size || size != size_of(command)) {
        refuse("rknn_query %d: %u bytes instead of %zu", (int)command, size, size_of(command));
        return leave(context, PARAM);
    }
    return leave(context, answer(&context->script, command, info));
}

/* --- Running --------------------------------------------------------------------------------- */

int rknn_inputs_set(rknn_context number, uint32_t count, rknn_input inputs[]) {
    Context *context = enter(number, "rknn_inputs_set");
    const Script *script = &context->script;
    size_t size = (size_t)(script->height * script->width * 3);
    check_readable(inputs, "inputs");
    if (count != 1 || inputs->index) return complain(context, PARAM, "there is one input, number 0");
    if (inputs->pass_through || inputs->type != RKNN_TENSOR_UINT8 || inputs->fmt != RKNN_TENSOR_NHWC)
        return complain(context, INPUT, "the input is not uint8 in NHWC without pass_through");
    if (inputs->size != size) return complain(context, INPUT, "the input has another size");
    check_readable(inputs->buf, "inputs[0].buf");
    check_readable((char *)inputs->buf + size - 1, "the end of inputs[0].buf");
    if (script->set_code) return leave(context, (int)script->set_code);
    free(context->pixels);
    context->pixels = memcpy(malloc(size), inputs->buf, size);
    context->ran = false;
    return leave(context, 0);
}

static void hang(const Context *context) {
    trace_event(context->trace, "encoder_hang", now_ns(), "%s", "");
    for (;;) pause();
}

int rknn_run(rknn_context number, void *extend) {
    Context *context = enter(number, "rknn_run");
    const Script *script = &context->script;
    int64_t start = now_ns();
    if (extend) check_readable(extend, "extend");
    if (!context->pixels) return complain(context, INPUT, "rknn_run before rknn_inputs_set");
    context->runs++;
    if (script->hang_at == context->runs) hang(context);
    if (script->crash_at == context->runs) {
        signal(SIGSEGV, SIG_DFL);
        raise(SIGSEGV);
    }
    if (script->run_code && (!script->fail_at || script->fail_at == context->runs))
        return leave(context, (int)script->run_code);
    if (script->run_ms) sleep_until(start + script->run_ms * 1000000);
    trace_event(context->trace, "encode", start, ", \"hash\": %u",
                hash_pixels(script, context->pixels));
    context->ran = true;
    return leave(context, 0);
}

static int check_outputs(const Context *context, uint32_t count, const rknn_output *outputs) {
    check_readable(outputs, "outputs");
    if (count != context->script.outputs)
        return refuse("%u outputs instead of %lld", count, (long long)context->script.outputs);
    for (uint32_t i = 0; i < count; i++) {
        if (outputs[i].index != i) return refuse("output %u has the index %u", i, outputs[i].index);
        if (outputs[i].want_float != 1 || outputs[i].is_prealloc)
            return refuse("output %u is not wanted as floats of the library's", i);
    }
    return 0;
}

int rknn_outputs_get(rknn_context number, uint32_t count, rknn_output outputs[], void *extend) {
    Context *context = enter(number, "rknn_outputs_get");
    if (extend) check_readable(extend, "extend");
    if (check_outputs(context, count, outputs)) return leave(context, OUTPUT);
    if (!context->ran) return complain(context, OUTPUT, "rknn_outputs_get before rknn_run");
    if (context->given[0]) return complain(context, OUTPUT, "the last outputs are not released");
    if (context->script.get_code) return leave(context, (int)context->script.get_code);
    for (uint32_t i = 0; i < count; i++) {
        outputs[i].buf = context->given[i] = embed(&context->script, context->pixels, i);
        outputs[i].size = (uint32_t)((elements(context) - context->script.short_output) * 4);
    }
    return leave(context, 0);
}

int rknn_outputs_release(rknn_context number, uint32_t count, rknn_output outputs[]) {
    Context *context = enter(number, "rknn_outputs_release");
    check_readable(outputs, "outputs");
    if (count != context->script.outputs)
        return complain(context, OUTPUT, "not all outputs are released");
    for (uint32_t i = 0; i < count; i++) {
        if (!context->given[i] || outputs[i].buf != context->given[i])
            reject("rknn_outputs_release: output %u is not given, or released before", i);
        memset(context->given[i], 0xFF, (size_t)elements(context) * 4); /* NaN, for who still reads */
        free(context->given[i]);
        context->given[i] = NULL;
    }
    return leave(context, (int)context->script.release_code);
}

__attribute__((destructor)) static void report_leaks(void) {
    for (size_t i = 0; i < CONTEXTS; i++)
        if (live[i]) refuse("context %zu was never destroyed", i);
}
