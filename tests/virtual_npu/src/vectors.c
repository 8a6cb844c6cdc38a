#include "vectors.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "reply.h"

/* What a token says: its letters without spaces and case; 0 for one that says nothing. */
static uint64_t meaning(const Vocab *vocab, int32_t id) {
    char folded[128];
    size_t length = 0;
    if (id < 0) return (uint32_t)id; /* a piece of an image or of an embedding */
    const char *text = vocab_text(vocab, id);
    if (vocab_special(vocab, id)) return 0;
    for (; *text && length < sizeof folded; text++)
        if (!isspace((unsigned char)*text)) folded[length++] = (char)tolower((unsigned char)*text);
    return length ? hash_bytes(folded, length) : 0;
}

static void add_features(double *sum, size_t size, uint64_t seed) {
    for (size_t i = 0; i < size; i++)
        sum[i] += (double)(random_next(&seed) >> 11) / (double)(1ull << 52) - 1;
}

static void put_row(float *row, const double *sum, size_t size) {
    double square = 1e-12;
    for (size_t i = 0; i < size; i++) square += sum[i] * sum[i];
    for (size_t i = 0; i < size; i++) row[i] = (float)(sum[i] / sqrt(square));
}

float *hidden_states(const Vocab *vocab, const Ids *ids, size_t size) {
    double *sum = calloc(size, sizeof *sum);
    float *rows = malloc(ids->length * size * sizeof *rows);
    sum[0] = 1e-6; /* a text that says nothing still has a direction */
    for (size_t t = 0; t < ids->length; t++) {
        uint64_t seed = meaning(vocab, ids->id[t]);
        if (seed) add_features(sum, size, seed);
        put_row(rows + t * size, sum, size);
    }
    free(sum);
    return rows;
}

float *logits(const Vocab *vocab, const Ids *ids, int32_t next) {
    size_t size = vocab_size(vocab);
    float *rows = malloc(ids->length * size * sizeof *rows);
    for (size_t t = 0; t < ids->length; t++) {
        uint64_t state = (uint64_t)(uint32_t)ids->id[t] << 20;
        for (size_t i = 0; i < size; i++)
            rows[t * size + i] = (float)(random_next(&state) >> 40) / (float)(1 << 24) * 8;
        int32_t wins = t + 1 < ids->length ? ids->id[t + 1] : next;
        if (wins >= 0) rows[t * size + (size_t)wins] = 16;
    }
    return rows;
}

void judge(float *row, const char *prompt, int64_t yes_id, int64_t no_id) {
    static const char asks[] = "<Query>: ", shows[] = "\n<Document>: ";
    const char *query = strstr(prompt, asks);
    const char *document = query ? strstr(query, shows) : NULL;
    int words = 0, found = 0;
    if (document) {
        char *text = strndup(query + strlen(asks), (size_t)(document - query) - strlen(asks));
        for (char *rest = text, *word; (word = strtok_r(rest, " ?!.,\n", &rest)); words++)
            found += strcasestr(document + strlen(shows), word) != NULL;
        free(text);
    }
    row[no_id] = 4;
    row[yes_id] = words ? 8 * (float)found / (float)words : 0;
}
