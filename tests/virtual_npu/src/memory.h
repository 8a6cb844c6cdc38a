/* The NPU's memory, which the models of all processes share. */
#ifndef VNPU_MEMORY_H
#define VNPU_MEMORY_H

#include "config.h"

/* Take the model's memory_mb from the file `npu`, in the domain `domain` and those after it. Returns a
 * descriptor that holds it until it is closed, -2 where the model names no such file, and -1 after a
 * complaint where it does not suffice. */
int memory_take(const Config *config, int domain);

#endif
