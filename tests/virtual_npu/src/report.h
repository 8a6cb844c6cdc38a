/* How the virtual NPU speaks: the runtime's log, and complaints about what it was given. */
#ifndef VNPU_REPORT_H
#define VNPU_REPORT_H

#define PRINTF(text, rest) __attribute__((format(printf, text, rest)))

/* A log line of the runtime on stdout, through stdio and unflushed: "I rkllm: ...". */
void log_line(char level, const char *format, ...) PRINTF(2, 3);

/* A log line of the layer below it, on stderr: "E RKNN: [hh:mm:ss.mmm] ...". */
void log_rknn(const char *format, ...) PRINTF(1, 2);

/* A value that the runtime refuses: says so on stderr and returns -1. */
int refuse(const char *format, ...) PRINTF(1, 2);

/* A value that only a wrong layout or a wild pointer gives: says so on stderr and aborts. */
_Noreturn void reject(const char *format, ...) PRINTF(1, 2);

#endif
