#include "template.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"
#include "release.h"

static void replace(char **place, const char *text) {
    free(*place);
    *place = text ? strdup(text) : NULL;
}

void template_set(Template *template, const char *system, const char *prefix, const char *postfix) {
    replace(&template->system, system);
    replace(&template->prefix, prefix);
    replace(&template->postfix, postfix);
    template_set_tools(template, NULL, NULL, NULL);
}

void template_set_tools(Template *template, const char *system, const char *tools,
                        const char *tag) {
    replace(&template->tool_system, system);
    replace(&template->tools, tools);
    replace(&template->tool_tag, tag);
}

void template_free(Template *template) {
    template_set(template, NULL, NULL, NULL);
}

const char *template_kind(const Template *template) {
    if (!template->prefix) return HAS_TEMPLATE ? "own" : "raw";
    return *template->system || *template->prefix || *template->postfix ? "set" : "raw";
}

static char *print(const char *format, const char *a, const char *b, const char *c) {
    char *text;
    if (asprintf(&text, format, a, b, c) < 0) abort();
    return text;
}

char *template_system(const Template *template) {
    if (template->prefix) return strdup(template->system);
    if (!template->tools) return strdup("");
    return print("<|im_start|>system\n%s\n<tools>\n%s\n</tools>%s<|im_end|>\n",
                 template->tool_system, template->tools, "");
}

char *template_message(const Template *template, const char *role, bool thinking,
                       const char *content) {
    if (template->prefix)
        return print("%s%s%s", template->prefix, content, template->postfix);
    if (!HAS_TEMPLATE) return strdup(content); /* 1.1.x leaves the template to its caller */
    const char *closed = template->think_template && !thinking ? "<think>\n\n</think>\n\n" : "";
    char *tail = print("<|im_end|>\n<|im_start|>assistant\n%s%s%s", closed, "", "");
    char *body = strcmp(role, "tool") || !template->tool_tag
                     ? strdup(content)
                     : print("%s\n%s\n%s", template->tool_tag, content, template->tool_tag);
    char *message = print("<|im_start|>user\n%s%s%s", body, tail, "");
    free(tail);
    free(body);
    return message;
}

/* How user messages begin, and how the text after them ends, by family. */
static const char *const openers[] = {
    "<|im_start|>user\n",                                    /* ChatML, Qwen, InternLM 2 */
    "<|start_header_id|>user<|end_header_id|>\n\n",          /* Llama 3 */
    "[INST]",                                                /* Llama 2, Mistral */
    "<start_of_turn>user\n",                                 /* Gemma */
    "<|user|>",                                              /* Phi-3, Zephyr, ChatGLM */
    "<｜User｜>",                                            /* DeepSeek */
    "<用户>",                                                /* MiniCPM */
    "<|User|>:",                                             /* InternLM 1 */
};

static const char *const closers[] = {
    "<|im_end|>", "<|eot_id|>", "[/INST]", "<end_of_turn>", "<|end|>", "</s>", "<|assistant|>",
    "<|endoftext|>", "<｜Assistant｜>", "<｜end", "<AI>", "<eoh>", "<|im_start|>",
    "<|start_header_id|>",
};

static const char *last_opened(const char *prompt) {
    const char *last = prompt;
    for (size_t i = 0; i < sizeof openers / sizeof *openers; i++)
        for (const char *at = prompt; (at = strstr(at, openers[i]));) {
            at += strlen(openers[i]);
            if (at > last) last = at;
        }
    return last;
}

static size_t closed_after(const char *text) {
    size_t length = strlen(text);
    for (size_t i = 0; i < sizeof closers / sizeof *closers; i++) {
        const char *at = strstr(text, closers[i]);
        if (at && (size_t)(at - text) < length) length = (size_t)(at - text);
    }
    return length;
}

static bool is_blank(char c) {
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

static void trim(char *text) {
    size_t start = 0, length = strlen(text);
    while (length && is_blank(text[length - 1])) length--;
    while (start < length && is_blank(text[start])) start++;
    memmove(text, text + start, length - start);
    text[length - start] = 0;
}

char *last_user_message(const char *prompt) {
    const char *from = last_opened(prompt), *start, *end;
    char *message = strndup(from, closed_after(from));
    while (directive_find(message, &start, &end))
        memmove(message + (start - message), end, strlen(end) + 1);
    trim(message);
    return message;
}
