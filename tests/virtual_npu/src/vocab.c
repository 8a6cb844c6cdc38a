#include "vocab.h"

#include <stdlib.h>
#include <string.h>

#define BYTES 256          /* ids below this are single bytes */
#define WORD_LETTERS 8
#define DIGITS 3
#define CONTROL_LIMIT 64   /* bytes of the longest control token */

struct Vocab {
    size_t size;
    int32_t eos_id;
    char **text; /* by id; NULL: not seen yet */
};

void ids_push(Ids *ids, int32_t id) {
    if (ids->length == ids->capacity) {
        ids->capacity = ids->capacity ? ids->capacity * 2 : 64;
        ids->id = realloc(ids->id, ids->capacity * sizeof *ids->id);
    }
    ids->id[ids->length++] = id;
}

void ids_free(Ids *ids) {
    free(ids->id);
    *ids = (Ids){0};
}

uint32_t hash_bytes(const void *bytes, size_t length) {
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < length; i++) hash = (hash ^ ((const uint8_t *)bytes)[i]) * 16777619u;
    return hash;
}

Vocab *vocab_new(size_t size, int32_t eos_id, const char *eos) {
    Vocab *vocab = calloc(1, sizeof *vocab);
    vocab->size = size;
    vocab->eos_id = eos_id;
    vocab->text = calloc(size, sizeof *vocab->text);
    for (int byte = 0; byte < BYTES; byte++) {
        char one[2] = {(char)byte, 0};
        vocab->text[byte] = strdup(one);
    }
    free(vocab->text[eos_id]);
    vocab->text[eos_id] = strdup(eos);
    return vocab;
}

void vocab_free(Vocab *vocab) {
    if (!vocab) return;
    for (size_t id = 0; id < vocab->size; id++) free(vocab->text[id]);
    free(vocab->text);
    free(vocab);
}

size_t vocab_size(const Vocab *vocab) {
    return vocab->size;
}

const char *vocab_text(const Vocab *vocab, int32_t id) {
    return id >= 0 && (size_t)id < vocab->size && vocab->text[id] ? vocab->text[id] : "";
}

static bool is_special(const char *text) {
    static const char *const known[] = {"<s>",  "</s>",  "<unk>",           "<pad>",
                                        "<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"};
    if (!strncmp(text, "<|", 2) || !strncmp(text, "<｜", 4)) return true;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(text, known[i])) return true;
    return false;
}

bool vocab_special(const Vocab *vocab, int32_t id) {
    return id == vocab->eos_id || (id >= BYTES && is_special(vocab_text(vocab, id)));
}

int32_t vocab_id(Vocab *vocab, const char *text, size_t length) {
    if (length == 1) return (uint8_t)*text;
    const char *eos = vocab->text[vocab->eos_id];
    if (strlen(eos) == length && !memcmp(eos, text, length)) return vocab->eos_id;
    size_t room = vocab->size - BYTES, slot = hash_bytes(text, length) % room;
    for (size_t tried = 0; tried < room; tried++, slot = (slot + 1) % room) {
        char **known = &vocab->text[BYTES + slot];
        if (BYTES + slot == (size_t)vocab->eos_id) continue;
        if (!*known) *known = strndup(text, length);
        if (strlen(*known) == length && !memcmp(*known, text, length))
            return (int32_t)(BYTES + slot);
    }
    return -1; /* every id is taken */
}

static bool is_letter(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

/* The bytes of the character that starts with `lead`. */
static size_t character_bytes(const char *text) {
    uint8_t lead = (uint8_t)*text;
    size_t length = lead < 0xC0 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    for (size_t i = 1; i < length; i++)
        if (((uint8_t)text[i] & 0xC0) != 0x80) return 1;
    return length;
}

/* The bytes of the control token at `text`, 0 where there is none: <|name|>, <name>, </name>. */
static size_t control_bytes(const char *text) {
    if (*text != '<') return 0;
    size_t length = 1;
    while (length < CONTROL_LIMIT && (uint8_t)text[length] > ' ' && !strchr("<>=\"'", text[length]))
        length++;
    return length > 1 && length < CONTROL_LIMIT && text[length] == '>' ? length + 1 : 0;
}

static size_t run(const char *text, bool (*belongs)(char), size_t limit) {
    size_t length = 0;
    while (length < limit && belongs(text[length])) length++;
    return length;
}

static size_t token_bytes(const char *text, bool split) {
    size_t length = control_bytes(text);
    if (length) return length;
    size_t space = *text == ' ';
    if ((length = run(text + space, is_letter, WORD_LETTERS))) return space + length;
    if ((length = run(text, is_digit, DIGITS))) return length;
    length = character_bytes(text);
    return length == 4 || split ? 1 : length;
}

void tokenize(Vocab *vocab, const char *text, bool split, Ids *ids) {
    while (*text) {
        size_t length = token_bytes(text, split);
        int32_t id = vocab_id(vocab, text, length);
        if (id < 0) {
            ids_push(ids, (uint8_t)*text);
            length = 1;
        } else {
            ids_push(ids, id);
        }
        text += length;
    }
}
