/* The chat template that the runtime itself puts around one message. */
#ifndef VNPU_TEMPLATE_H
#define VNPU_TEMPLATE_H

#include <stdbool.h>

typedef struct {
    char *system, *prefix, *postfix; /* as set by the caller; NULL: the model's own */
    char *tools, *tool_system, *tool_tag;
    bool think_template; /* the model's own template has an empty thinking block to write */
} Template;

void template_free(Template *template);
void template_set(Template *template, const char *system, const char *prefix, const char *postfix);
void template_set_tools(Template *template, const char *system, const char *tools, const char *tag);

/* "own", "raw" (all three parts empty) or "set". */
const char *template_kind(const Template *template);

/* The system part, in fresh memory; "" where there is none. */
char *template_system(const Template *template);

/* One message, without the system part, in fresh memory. */
char *template_message(const Template *template, const char *role, bool thinking,
                       const char *content);

/* The text of the last user message of a prompt that is already templated, in fresh memory, without
 * the directive in it. Knows the common families' markers; else it is the whole prompt. */
char *last_user_message(const char *prompt);

#endif
