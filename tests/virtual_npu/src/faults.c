#include "faults.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "reply.h"
#include "vocab.h"

#define BLANKS " \n\r\t"
#define ENDLESS 200

typedef struct {
    const char *start, *end;
    bool key;
} Part;

/* Behind the string that begins at `at`. */
static const char *string_end(const char *at) {
    for (at++; *at && *at != '"'; at++)
        if (*at == '\\' && at[1]) at++;
    return *at ? at + 1 : at;
}

/* The first key or scalar of the JSON in `text` that ends behind `at`. */
static bool find_part(const char *text, const char *at, Part *part) {
    char before = ':';
    for (const char *p = text; *p; p++) {
        if (strchr(BLANKS, *p)) continue;
        if (strchr("{}[],:", *p)) {
            before = *p;
            continue;
        }
        const char *end = *p == '"' ? string_end(p) : p + strcspn(p, ",]}" BLANKS);
        bool begins = strchr("{[,:", before);
        before = '"';
        *part = (Part){.start = p, .end = end, .key = end[strspn(end, BLANKS)] == ':'};
        if (begins && end > at) return true;
        p = end - 1;
    }
    return false;
}

/* Whether `written` holds what stands in `text` up to `end`, blanks aside. */
static bool ends_with(const char *written, const char *written_end, const char *text,
                      const char *end) {
    while (end > text) {
        if (strchr(BLANKS, *--end)) continue;
        while (written_end > written && strchr(BLANKS, written_end[-1])) written_end--;
        if (written_end == written || *--written_end != *end) return false;
    }
    return true;
}

/* Whether a string is open at the end of `text`. */
static bool in_string(const char *text) {
    bool open = false;
    for (; *text; text++) {
        if (*text == '\\' && open && text[1])
            text++;
        else if (*text == '"')
            open = !open;
    }
    return open;
}

const char *behind_value(const char *reply, const char *open_turn, const char **end) {
    const char *open = strpbrk(open_turn, "{["), *found = NULL, *last = open;
    Part key = {.end = reply}, value;
    *end = "";
    if (!open) return NULL;
    while (find_part(reply, key.end, &key)) {
        if (!key.key || !find_part(reply, key.end, &value)) continue;
        const char *colon = strchr(key.end, ':') + 1;
        for (const char *at = last; (at = strchr(at, ':')); at++)
            if (ends_with(open, at + 1, key.start, colon)) {
                found = value.key ? colon : value.end;
                last = at;
            }
    }
    if (found && in_string(last)) *end = "\"";
    return found;
}

/* --- what is wrong --------------------------------------------------------------------------- */

static void write_quoted(FILE *out, const char *body, const char *left, const char *right) {
    size_t length = strlen(body);
    bool quoted = length > 1 && *body == '"';
    fprintf(out, "%s%.*s%s", left, (int)(length - 2 * quoted), body + quoted, right);
}

/* Write a value wrong; whether the model ends there. */
static bool write_wrong(FILE *out, const char *body, uint64_t kind) {
    size_t length = strlen(body);
    switch (kind % 10) {
    case 0: fprintf(out, "Sure! Here it is: %s", body); return false;
    case 1: write_quoted(out, body, "'", "'"); return false;
    case 2: fputs("about twelve", out); return false;
    case 3: fprintf(out, "%.*s\\x41\"", (int)(length - (length > 1)), body); return false;
    case 4:
        fprintf(out, "%.*s", (int)(length - (length > 1)), body);
        for (int i = 0; i < ENDLESS; i++) fputs("0", out);
        return true;
    case 5: fprintf(out, "%.*s", (int)(length / 2), body); return true;
    case 6: fprintf(out, "%s units", body); return false;
    case 7: write_quoted(out, body, "\u201c", "\u201d"); return false;
    case 8: fprintf(out, "```json\n%s\n```", body); return false;
    default: fprintf(out, "%s,}", body); return false;
    }
}

/* Write a key with its first letter twice. */
static void write_key(FILE *out, const char *body) {
    size_t length = strlen(body), first = *body == '"' && length > 2;
    fprintf(out, "%.*s%.*s", (int)(first + 1), body, (int)(length - first), body + first);
}

static bool write_part(FILE *out, const Part *part, const char *from, uint64_t chance) {
    char *body = strndup(from, (size_t)(part->end - from));
    bool ends = false;
    if (part->key)
        write_key(out, body);
    else
        ends = write_wrong(out, body, chance);
    free(body);
    return ends;
}

char *with_faults(const Config *config, const char *rest, uint64_t run, Begin *begin) {
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    const char *at = rest;
    uint64_t seed = config->seed < 0 ? run : (uint64_t)config->seed;
    seed = seed << 32 ^ hash_bytes(config->reply, strlen(config->reply));
    bool first = true, ends = false;
    Part part;
    while (!ends && find_part(config->reply, at, &part)) {
        const char *from = at > part.start ? at : part.start;
        uint64_t place = seed + (uint64_t)(part.start - config->reply) * 1000003;
        uint64_t hash = place;
        int64_t tries = first ? ++begin->tries[random_next(&hash) % PLACES] : 0;
        uint64_t random = place + (uint64_t)tries;
        bool begins = from <= part.start + (*part.start == '"');
        bool wrong = random_next(&random) % 100 < (uint64_t)config->faults;
        fwrite(at, 1, (size_t)(from - at), out);
        if (begins && wrong && tries < config->fault_tries)
            ends = write_part(out, &part, from, random_next(&random));
        else
            fwrite(from, 1, (size_t)(part.end - from), out);
        at = part.end;
        first = false;
    }
    if (!ends) fputs(at, out);
    fclose(out);
    return text;
}
