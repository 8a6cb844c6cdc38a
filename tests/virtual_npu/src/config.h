/* What a model file, a LoRA file or a directive in a prompt scripts: key=value, see README.md. */
#ifndef VNPU_CONFIG_H
#define VNPU_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum {
    REPLY_ECHO,
    REPLY_PROMPT,
    REPLY_PARAMS,
    REPLY_PICTURE,
    REPLY_TEXT,
    REPLY_TOKENS,
    REPLY_RANDOM
} Mode;
typedef enum { WAITING_BYTES, WAITING_HELD, WAITING_NONE } Waiting;

typedef struct {
    Mode mode;
    Waiting waiting;
    char *reply;
    int64_t tokens; /* of REPLY_TOKENS and REPLY_RANDOM */
    int64_t seed;   /* -1: another one for each run */
    int64_t faults, fault_tries; /* percent of the keys and values of a reply; see faults.h */
    int64_t split, no_eos, think_template;
    int64_t prefill_us, token_us, load_ms;
    int64_t init_error, init_null, crash_in_init, hang_in_init;
    int64_t run_error, run_fail, error_at, segv_at, abort_at, exit_at, exit_code, hang_at;
    int64_t abort_finish, magic_bad;
    int64_t eos_id, vocab_size, embd_size, image_outputs, max_context, npu_core_num, memory_mb;
    int64_t npu_mb, leak_mb;
    int64_t yes_id, no_id; /* the tokens by which it judges documents; -1: it does not */
    int64_t kv_bytes;    /* of a token in a prompt cache file */
    int64_t state_fault; /* of a load: 1 other answers, 2 nothing of it is reused, 3 SIGSEGV */
    uint32_t identity;   /* hash of the file that was read last */
    int64_t trace_tokens, trace_prompt;
    char *eos, *toolkit, *runtimes, *platform, *board, *dtype, *driver, *log, *run_log, *trace, *npu;
} Config;

/* The defaults; give it back with config_free. */
Config config_default(void);
void config_free(Config *config);
Config config_copy(const Config *config);

/* Apply "key=value" pairs up to `end`, separated by `separator`; an unknown key or a value out of
 * range is a complaint and -1. */
int config_apply(Config *config, const char *text, const char *end, char separator);

/* The result of config_read. */
typedef enum { MODEL_READ, MODEL_MISSING, MODEL_FOREIGN, MODEL_WRONG } ModelFile;

/* Apply a model file. MODEL_FOREIGN: it is not one of the virtual NPU's. */
ModelFile config_read(Config *config, const char *path);

/* The last directive in `text`, from its '@' to behind its '}': false where there is none. */
bool directive_find(const char *text, const char **start, const char **end);

/* Apply the directive that directive_find found. */
int directive_apply(Config *config, const char *start, const char *end);

#endif
