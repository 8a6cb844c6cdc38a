/* Loading a model file into an instance, with the runtime's log and its faults. */
#ifndef VNPU_LOAD_H
#define VNPU_LOAD_H

#include "instance.h"

/* 0 with a new instance, 0 with NULL where the script wants that, or -1. `param` is checked. */
int instance_load(const RKLLMParam *param, Instance **instance);
void instance_free(Instance *instance);

/* Log the lines of a key such as `log`. */
void log_scripted(const char *names);

#endif
