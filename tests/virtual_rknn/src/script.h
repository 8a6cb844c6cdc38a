/* What a virtual .rknn file scripts: key=value lines behind its JSON text, see README.md. */
#ifndef VRKNN_SCRIPT_H
#define VRKNN_SCRIPT_H

#include <stdbool.h>
#include <stdint.h>

#define FACTORY "RK3588"

typedef struct {
    int64_t height, width, nchw;
    int64_t tokens, embedding, outputs, rank;
    int64_t load_ms, run_ms;
    int64_t init_code, mask_code, query_code, set_code, run_code, get_code, release_code;
    int64_t crash_in_init, crash_at, hang_at, fail_at; /* the last three count runs from 1 */
    int64_t short_output;                              /* 1: outputs are a float too short */
    char platform[32], board[32], trace[512];
} Script;

/* Read the file's script: 0, or -1 where there is none, after a complaint for a bad one. */
int script_read(Script *script, const char *path);

#endif
