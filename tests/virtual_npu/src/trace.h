/* The side channel for tests and benchmarks: one JSON object per event, appended to a file. */
#ifndef VNPU_TRACE_H
#define VNPU_TRACE_H

#include <stdint.h>

/* Nanoseconds of CLOCK_MONOTONIC. */
int64_t now_ns(void);

/* Sleep until that moment; at once when it is past. */
void sleep_until(int64_t ns);

/* A descriptor for the trace file `path`, or $VNPU_TRACE where it is ""; -1: no trace. */
int trace_open(const char *path);

/* Write {"event": name, "ns": ns, ...fields...}; fields is "" or begins with a comma. */
void trace_event(int trace, const char *name, int64_t ns, const char *fields, ...)
    __attribute__((format(printf, 4, 5)));

/* Write {"event": "tokens", "ns": [...]}. */
void trace_tokens(int trace, const int64_t *ns, int64_t count);

/* `text` as a JSON string with its quotes, in fresh memory; bytes that are not UTF-8 stay. */
char *json_string(const char *text);

#endif
