#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cachefile.h"
#include "instance.h"
#include "load.h"
#include "picture.h"
#include "prompt.h"
#include "report.h"
#include "trace.h"
#include "vectors.h"

typedef enum { GO_ON, PAUSE, RELEASE } Answer;

/* Call the callback with the results as they stand. */
static Answer call(Instance *instance, LLMCallState state) {
#if CALLBACK_ANSWERS
    int answer = instance->callback(instance->results, instance->run.userdata, state);
    if (answer == PAUSE) {
        instance->pauses++;
        refuse("the callback returned 1 (pause) for the %lld. time: no FINISH will come",
               (long long)instance->pauses);
        return state == RKLLM_RUN_NORMAL || state == RKLLM_RUN_WAITING ? PAUSE : GO_ON;
    }
    if (answer != GO_ON && !(answer == RELEASE && HAS_RUN_SAMPLING))
        reject("the callback returned %d", answer);
    return (Answer)answer;
#else
    instance->callback(instance->results, instance->run.userdata, state);
    return GO_ON;
#endif
}

static void clear_results(Instance *instance) {
    memset(instance->results, 0, (size_t)instance->n_batch * sizeof *instance->results);
    for (int i = 0; i < instance->n_batch; i++) instance->results[i].token_id = -1;
}

static void fill_perf(Instance *instance) {
#if HAS_PERF
    const Run *run = &instance->run;
    int64_t now = now_ns();
    for (int i = 0; i < instance->n_batch; i++) {
        const Slot *slot = &instance->slots[i];
        RKLLMPerfStat *perf = &instance->results[i].perf;
        perf->prefill_time_ms = (float)(run->prefilled - run->start) / 1e6f;
        perf->prefill_tokens = (int)slot->evaluated;
        perf->generate_time_ms = (float)(now - run->prefilled) / 1e6f;
        perf->generate_tokens = (int)slot->given;
        perf->memory_usage_mb =
            (float)instance->config.memory_mb + (float)slot->kv.length / 1024.0f;
    }
#else
    (void)instance;
#endif
}

static void leak(int64_t megabytes) {
    static void *volatile lost;
    if (megabytes) memset(lost = malloc((size_t)megabytes << 20), 1, (size_t)megabytes << 20);
}

Origin origin_of(const Instance *instance) {
    Origin origin = {.release = VNPU_REPORTED,
                     .model = instance->config.identity,
                     .context = instance->param.max_context_len,
                     .kv_bytes = (uint32_t)instance->config.kv_bytes};
    return origin;
}

/* Write the state after the prefill. What an abort leaves cannot be loaded; a context that was full
 * does not hold it any more. */
static int save(Instance *instance, const char *reason) {
    const Run *run = &instance->run;
    const Slot *slot = instance->slots;
    if (!run->save_cache) return 0;
    if (slot->shifts || slot->kv.length < run->save_tokens)
        return refuse("the context was shifted: %s is not written", run->save_cache), 0;
    Ids kv = {.id = slot->kv.id, .length = run->save_tokens};
    Origin origin = origin_of(instance);
    int64_t start = now_ns();
    int result =
        cache_save(run->save_cache, instance->vocab, &kv, &origin, strcmp(reason, "abort"));
    trace_event(instance->trace, "save", start, ", \"tokens\": %zu, \"took\": %lld",
                run->save_tokens, (long long)(now_ns() - start));
    return result;
}

/* The end of a run: trace, free, and the callback's last call unless `state` is NORMAL. */
static int finish(Instance *instance, const char *reason, LLMCallState state, int result) {
    int64_t given = 0;
    for (int i = 0; i < instance->n_batch; i++) given += instance->slots[i].given;
    if (instance->run.times)
        trace_tokens(instance->trace, instance->run.times, instance->run.steps);
    clear_results(instance);
    fill_perf(instance);
    leak(instance->config.leak_mb);
    atomic_store(&instance->ending, true);
    if (state != RKLLM_RUN_NORMAL) call(instance, state);
    if (state != RKLLM_RUN_ERROR && save(instance, reason)) result = -1;
    trace_event(instance->trace, "finish", now_ns(),
                ", \"reason\": \"%s\", \"generated\": %lld, \"kv\": %zu", reason, (long long)given,
                instance->slots->kv.length);
    run_free(instance);
    return result;
}

static int fail(Instance *instance) {
    return finish(instance, "error", RKLLM_RUN_ERROR, -1);
}

static int stop(Instance *instance, const char *reason) {
    bool silent = !strcmp(reason, "abort") && !instance->config.abort_finish;
    return finish(instance, reason, silent ? RKLLM_RUN_NORMAL : RKLLM_RUN_FINISH, 0);
}

static void hang(void) {
    for (;;) pause();
}

static void crash(void) {
    signal(SIGSEGV, SIG_DFL);
    raise(SIGSEGV);
}

/* The faults that the script wants before token `given` is out. */
static bool fault(const Config *config, int64_t given) {
    if (config->hang_at == given) hang();
    if (config->segv_at == given) crash();
    if (config->abort_at == given) {
        fputs("GGML_ASSERT: vnpu: abort_at\n", stderr);
        abort();
    }
    if (config->exit_at == given) _exit((int)config->exit_code);
    return config->error_at == given;
}

/* The same, where what one input wants befalls all of them. */
static bool any_fault(const Instance *instance, int64_t given) {
    bool found = false;
    for (int i = 0; i < instance->n_batch; i++) found |= fault(&instance->slots[i].config, given);
    return found;
}

static bool ends_at_eos(const Instance *instance, const Slot *slot) {
#if HAS_RUN_SAMPLING
    if (instance->param.ignore_eos_token) return false;
#else
    (void)instance;
#endif
    return !slot->config.no_eos;
}

/* --- before the first token ------------------------------------------------------------------ */

static void trace_start(Instance *instance) {
    const Run *run = &instance->run;
    for (int i = 0; i < instance->n_batch; i++) {
        const Slot *slot = &instance->slots[i];
        char *text = slot->config.trace_prompt ? json_string(slot->prompt_text) : strdup("null");
        trace_event(instance->trace, "run", run->start,
                    ", \"mode\": %d, \"slot\": %d, \"prompt_tokens\": %zu, \"matched\": %zu, "
                    "\"evaluated\": %zu, \"history\": %s, \"prompt\": %s",
                    (int)run->mode, i, slot->matched + slot->evaluated, slot->matched,
                    slot->evaluated, run->history ? "true" : "false", text);
        free(text);
    }
}

static char *params_json(const Instance *instance, const RKLLMInput *input,
                         const RKLLMInferParam *infer) {
    const Run *run = &instance->run;
    const Sampling *s = &run->sampling;
    const char *lora = infer->lora_params ? infer->lora_params->lora_adapter_name : "";
    const char *role = "null", *thinking = "null";
    char *json;
#if HAS_ROLE
    role = strcmp(input->role, "tool") ? "\"user\"" : "\"tool\"";
    thinking = input->enable_thinking ? "true" : "false";
#else
    (void)input;
#endif
    if (asprintf(&json,
                 "{\"max_context_len\": %d, \"max_new_tokens\": %lld, \"top_k\": %d, "
                 "\"top_p\": %.6g, \"temperature\": %.6g, \"repeat_penalty\": %.6g, "
                 "\"frequency_penalty\": %.6g, \"presence_penalty\": %.6g, \"mirostat\": %d, "
                 "\"mirostat_tau\": %.6g, \"mirostat_eta\": %.6g, \"keep_history\": %s, "
                 "\"role\": %s, \"enable_thinking\": %s, \"template\": \"%s\", \"tools\": %s, "
                 "\"lora\": \"%s\"}",
                 instance->param.max_context_len, (long long)run->max_new, s->top_k,
                 (double)s->top_p, (double)s->temperature, (double)s->repeat_penalty,
                 (double)s->frequency_penalty, (double)s->presence_penalty, s->mirostat,
                 (double)s->mirostat_tau, (double)s->mirostat_eta, run->history ? "true" : "false",
                 role, thinking, template_kind(&instance->template),
                 instance->template.tools ? "true" : "false", lora) < 0)
        abort();
    return json;
}

static void begin_run(Instance *instance, const RKLLMInferParam *infer, void *userdata) {
    Run *run = &instance->run;
    *run = (Run){.userdata = userdata,
                 .mode = infer->mode,
                 .sampling = sampling_of_param(&instance->param),
                 .max_new = instance->param.max_new_tokens,
                 .start = now_ns()};
#if HAS_HISTORY
    instance->history |= infer->keep_history;
#endif
    run->history = instance->history && infer->mode == RKLLM_INFER_GENERATE;
    run->reuse = HAS_HISTORY && infer->mode == RKLLM_INFER_GENERATE;
    if (infer->prompt_cache_params && infer->prompt_cache_params->save_prompt_cache)
        run->save_cache = strdup(infer->prompt_cache_params->prompt_cache_path);
#if HAS_RUN_SAMPLING
    const RKLLMSamplingParam *s = infer->sampling_params;
    if (s)
        run->sampling = (Sampling){s->top_k,           s->top_p,        s->temperature,
                                   s->repeat_penalty,  s->frequency_penalty,
                                   s->presence_penalty, s->mirostat,    s->mirostat_tau,
                                   s->mirostat_eta};
    if (infer->max_new_tokens > 0) run->max_new = infer->max_new_tokens;
#endif
}

static void trace_pictures(const Instance *instance, const Pictures *pictures) {
    if (!pictures->count) return;
    char *start = json_string(pictures->start), *end = json_string(pictures->end);
    char *content = json_string(pictures->content);
    trace_event(instance->trace, "pictures", now_ns(),
                ", \"count\": %zu, \"tokens\": %zu, \"markers\": [%s, %s, %s]",
                pictures->count, pictures->tokens, start, end, content);
    free(start);
    free(end);
    free(content);
}

static int read_slot(Instance *instance, Slot *slot, const RKLLMInput *input,
                     const RKLLMInferParam *infer) {
    const char *lora = infer->lora_params ? infer->lora_params->lora_adapter_name : NULL;
    slot->planned = true;
    slot->given = slot->shifts = 0;
    slot->last = -1;
    slot->done = false;
    slot->piece_length = 0;
    slot->missing = 0;
    if (input->input_type == RKLLM_INPUT_EMBED) instance->run.reuse &= EMBEDDINGS_REUSED;
    if (prompt_read(instance, slot, input, lora)) return -1;
    char *message = last_user_message(slot->prompt_text);
    Pictures pictures = pictures_of(instance, input);
    char *params = slot->config.mode == REPLY_PICTURE
                       ? pictures_describe(slot, &pictures, (size_t)instance->config.embd_size,
                                           (size_t)instance->config.image_outputs)
                       : params_json(instance, input, infer);
    trace_pictures(instance, &pictures);
    Config config = slot->config;
    if (config.state_fault == 1 && instance->cache_loaded) {
        config.mode = REPLY_TEXT;
        config.reply = "another answer";
    }
    slot->reply = reply_plan(&config, instance->vocab, slot->prompt_text, message, params,
                             &instance->run.sampling, instance->runs, &slot->begin);
    free(message);
    free(params);
    return 0;
}

int run_prepare(Instance *instance, const RKLLMInput *inputs, const RKLLMInferParam *infer,
                void *userdata) {
    if (check_infer(infer)) return -1;
    check_readable(inputs, "rkllm_input");
    for (int i = 0; i < instance->n_batch; i++)
        if (check_input(&inputs[i], &instance->config))
            return -1;
    if (instance->run.paused) {
        instance->run.paused = false; /* the next run goes on with the paused one */
        return 0;
    }
    begin_run(instance, infer, userdata);
#if HAS_RUN_SAMPLING
    if (check_sampling(&instance->run.sampling)) return -1;
#endif
    for (int i = 0; i < instance->n_batch; i++)
        if (read_slot(instance, &instance->slots[i], &inputs[i], infer)) return -1;
    instance->runs++;
    return 0;
}

void run_free(Instance *instance) {
    for (int i = 0; i < instance->n_batch; i++) {
        Slot *slot = &instance->slots[i];
        if (!slot->planned) continue;
        slot->planned = false;
        config_free(&slot->config);
        ids_free(&slot->prompt);
        reply_free(&slot->reply);
        free(slot->prompt_text);
        slot->prompt_text = NULL;
    }
    free(instance->run.save_cache);
    free(instance->run.times);
    instance->run.save_cache = NULL;
    instance->run.times = NULL;
}

/* Compute the prompts: all that takes the time of prefill. Nothing interrupts it. */
static int prefill(Instance *instance) {
    Run *run = &instance->run;
    size_t longest = 0;
    for (int i = 0; i < instance->n_batch; i++) {
        Slot *slot = &instance->slots[i];
        if (prompt_match(instance, slot)) return -1;
        if (slot->evaluated > longest) longest = slot->evaluated;
        if (HAS_HISTORY)
            log_line('I', "kv cache matches %zu / %zu tokens", slot->matched,
                     slot->matched + slot->evaluated);
    }
    log_scripted(instance->slots->config.run_log);
    trace_start(instance);
    int64_t until = run->start + (int64_t)longest * instance->slots->config.prefill_us * 1000;
    for (int i = 0; i < instance->n_batch; i++) {
        Slot *slot = &instance->slots[i];
        for (size_t t = slot->prompt.length - slot->evaluated; t < slot->prompt.length; t++)
            ids_push(&slot->kv, slot->prompt.id[t]);
    }
    run->prefilled = now_ns();
    if (instance->slots->config.prefill_us) sleep_until(run->prefilled = until);
    run->deadline = run->prefilled;
    run->save_tokens = instance->slots->kv.length;
    return 0;
}

/* --- hidden states and logits ---------------------------------------------------------------- */

/* Only 1.3 leaves the buffers to the callback; before it they end with the call. */
static void retire(Instance *instance, float *rows, size_t count, Answer answer) {
    if (HAS_RUN_SAMPLING && answer != RELEASE) {
        instance->held = realloc(instance->held, (instance->held_count + 1) * sizeof(float *));
        instance->held[instance->held_count++] = rows;
        return;
    }
    memset(rows, 0xFF, count * sizeof *rows);
    free(rows);
}

/* Put the hidden states of these tokens into the result; how many floats they are goes to `count`. */
static float *put_hidden(Instance *instance, const Ids *ids, RKLLMResult *result, size_t *count) {
    size_t width = (size_t)instance->config.embd_size;
    float *rows = hidden_states(instance->vocab, ids, width);
    result->last_hidden_layer.hidden_states = rows;
    result->last_hidden_layer.embd_size = (int)width;
    result->last_hidden_layer.num_tokens = (int)ids->length;
    *count = ids->length * width;
    return rows;
}

/* The same for logits, after which the slot's next token is chosen. */
static float *put_logits(Instance *instance, Slot *slot, const Ids *ids, RKLLMResult *result,
                         size_t *count) {
    size_t width = vocab_size(instance->vocab);
    slot->next = reply_next(&slot->reply, instance->vocab);
    float *rows = logits(instance->vocab, ids, slot->next);
    *count = ids->length * width;
    if (slot->config.yes_id >= 0 && slot->config.no_id >= 0)
        judge(rows + *count - width, slot->prompt_text, slot->config.yes_id, slot->config.no_id);
#if HAS_LOGITS
    result->logits.logits = rows;
    result->logits.vocab_size = (int)width;
    result->logits.num_tokens = (int)ids->length;
#else
    (void)result;
#endif
    return rows;
}

/* Give rows for what was computed last: the prompts at first, then a token each. An input whose
 * answer has ended has none. */
static void give_rows(Instance *instance, bool prompts) {
    bool hidden = instance->run.mode == RKLLM_INFER_GET_LAST_HIDDEN_LAYER;
    LLMCallState state = RKLLM_RUN_NORMAL;
    float *rows[MOST_BATCH] = {0};
    size_t counts[MOST_BATCH] = {0};
#if !HAS_LOGITS
    state = RKLLM_RUN_GET_LAST_HIDDEN_LAYER;
#endif
    clear_results(instance);
    for (int i = 0; i < instance->n_batch; i++) {
        Slot *slot = &instance->slots[i];
        int32_t token = slot->next;
        Ids one = {.id = &token, .length = 1};
        const Ids *ids = prompts ? &slot->prompt : &one;
        RKLLMResult *result = &instance->results[i];
        if (slot->done) continue;
        rows[i] = hidden ? put_hidden(instance, ids, result, &counts[i])
                         : put_logits(instance, slot, ids, result, &counts[i]);
    }
    Answer answer = call(instance, state);
    for (int i = 0; i < instance->n_batch; i++)
        if (rows[i]) retire(instance, rows[i], counts[i], answer);
}

/* Count the token that was chosen; whether every answer has ended. */
static bool count_tokens(Instance *instance) {
    bool all_done = true;
    for (int i = 0; i < instance->n_batch; i++) {
        Slot *slot = &instance->slots[i];
        if (slot->done) continue;
        slot->done = (slot->next == slot->config.eos_id && ends_at_eos(instance, slot)) ||
                     (instance->run.max_new >= 0 && ++slot->given >= instance->run.max_new);
        all_done &= slot->done;
    }
    return all_done;
}

/* Hidden states end with those of the prompts; with logits the run goes on generating. */
static int run_vectors(Instance *instance) {
    Run *run = &instance->run;
    for (;;) {
        if (any_fault(instance, run->steps)) return finish(instance, "error", RKLLM_RUN_ERROR, 0);
        if (atomic_load_explicit(&instance->aborted, memory_order_acquire))
            return stop(instance, "abort");
        give_rows(instance, !run->steps++);
        if (run->mode == RKLLM_INFER_GET_LAST_HIDDEN_LAYER || count_tokens(instance))
            return stop(instance, "vectors");
        int64_t token_us = instance->slots->config.token_us;
        if (token_us) sleep_until(run->deadline += token_us * 1000);
    }
}

/* --- generation ------------------------------------------------------------------------------ */

/* How many bytes the character lacks that `text` ends in, given what was missing before it. */
static int still_missing(int missing, const char *text) {
    for (; *text; text++) {
        uint8_t byte = (uint8_t)*text;
        missing = byte < 0x80   ? 0
                  : byte < 0xC0 ? (missing ? missing - 1 : 0)
                  : byte < 0xE0 ? 1
                  : byte < 0xF0 ? 2
                                : 3;
    }
    return missing;
}

static bool is_skipped(const Instance *instance, int32_t id) {
    return instance->param.skip_special_token && vocab_special(instance->vocab, id);
}

/* Put the slot's token into its result; whether a character in it is complete. */
static LLMCallState put_piece(Instance *instance, Slot *slot, RKLLMResult *result) {
    const char *text =
        is_skipped(instance, slot->next) ? "" : vocab_text(instance->vocab, slot->next);
    bool held_back = slot->config.waiting == WAITING_HELD && slot->missing;
    slot->missing = still_missing(slot->missing, text);
    if (!held_back) slot->piece_length = 0;
    size_t length = strlen(text);
    memcpy(slot->piece + slot->piece_length, text, length + 1);
    slot->piece_length += length;
    result->token_id = slot->next;
    result->text = slot->piece;
    if (!slot->missing || slot->config.waiting == WAITING_NONE) return RKLLM_RUN_NORMAL;
    if (slot->config.waiting == WAITING_HELD) result->text = "";
    return RKLLM_RUN_WAITING;
}

/* Give every slot's token to the callback. */
static Answer give(Instance *instance) {
    LLMCallState state = RKLLM_RUN_NORMAL;
    Run *run = &instance->run;
    for (int i = 0; i < instance->n_batch; i++) {
        Slot *slot = &instance->slots[i];
        RKLLMResult *result = &instance->results[i];
        result->text = NULL;
        result->token_id = -1;
        if (slot->done) continue;
        LLMCallState own = put_piece(instance, slot, result);
        if (instance->n_batch == 1) state = own;
        slot->last = slot->next;
        slot->given++;
    }
    if (run->times) {
        run->times = realloc(run->times, (size_t)(run->steps + 2) * sizeof *run->times);
        run->times[run->steps] = now_ns();
    }
    run->steps++;
    Answer answer = call(instance, state);
    for (int i = 0; i < instance->n_batch; i++)
        if (!instance->slots[i].missing) *instance->slots[i].piece = '\xFF';
    return answer;
}

/* Choose the slot's next token, or end it. An end-of-sequence token is given to the callback only
 * where its text is wanted or it does not end the answer. */
static void advance(Instance *instance, Slot *slot) {
    if (slot->done) return;
    if (instance->run.max_new >= 0 && slot->given >= instance->run.max_new) {
        slot->done = true; /* the last token was given, but is not computed any more */
        return;
    }
    if (slot->last >= 0) {
        kv_shift(instance, slot, 1);
        ids_push(&slot->kv, slot->last);
    }
    if (slot->last == slot->config.eos_id && ends_at_eos(instance, slot)) {
        slot->kv.length--;
        slot->given--;
        slot->done = true;
        return;
    }
    slot->next = reply_next(&slot->reply, instance->vocab);
    slot->done = slot->next == slot->config.eos_id && ends_at_eos(instance, slot) &&
                 instance->param.skip_special_token;
}

static bool advance_all(Instance *instance) {
    bool all_done = true;
    for (int i = 0; i < instance->n_batch; i++) {
        advance(instance, &instance->slots[i]);
        all_done &= instance->slots[i].done;
    }
    return all_done;
}

static int generate(Instance *instance) {
    const Config *config = &instance->slots->config;
    Run *run = &instance->run;
    clear_results(instance);
    if (config->trace_tokens && instance->trace >= 0 && !run->times)
        run->times = malloc(sizeof *run->times);
    for (;;) {
        if (any_fault(instance, run->steps)) return finish(instance, "error", RKLLM_RUN_ERROR, 0);
        if (advance_all(instance)) return stop(instance, "stop");
        if (config->token_us) sleep_until(run->deadline += config->token_us * 1000);
        if (atomic_load_explicit(&instance->aborted, memory_order_acquire))
            return stop(instance, "abort");
        if (give(instance) == PAUSE) {
            run->paused = true;
            return 0;
        }
    }
}

int run_execute(Instance *instance) {
    Run *run = &instance->run;
    bool wants_failure = false, wants_error = false;
    if (run->prefilled) return generate(instance);
    for (int i = 0; i < instance->n_batch; i++) {
        wants_failure |= instance->slots[i].config.run_fail;
        wants_error |= instance->slots[i].config.run_error;
    }
    if (wants_failure) {
        run_free(instance);
        return -1;
    }
    if (prefill(instance) || wants_error) return fail(instance);
    if (run->mode != RKLLM_INFER_GENERATE) return run_vectors(instance);
    return generate(instance);
}
