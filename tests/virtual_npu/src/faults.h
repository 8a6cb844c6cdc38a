/* A reply as a model writes it that misbehaves: at its keys and values, by chance. */
#ifndef VNPU_FAULTS_H
#define VNPU_FAULTS_H

#include "config.h"

#define PLACES 1024

/* How many runs began at a value of a reply; few of them share a place. */
typedef struct {
    uint16_t tries[PLACES];
} Begin;

/* Where in the reply a model goes on that has written something else: behind the value in which the
 * prompt ends. `part` is written first, the quote that ends a string. NULL: the prompt holds nothing
 * of the reply. */
const char *behind_value(const char *reply, const char *open_turn, const char **part);

/* What is written of `rest`, the end of the reply; in fresh memory. `run` is the seed where the
 * script has none. */
char *with_faults(const Config *config, const char *rest, uint64_t run, Begin *begin);

#endif
