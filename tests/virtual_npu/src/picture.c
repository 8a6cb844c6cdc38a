#include "picture.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "report.h"

#define CELLS 3 /* a picture is told as CELLS x CELLS colours */
#define FIRST_OUTPUT 1000.0f

/* What the virtual encoder writes at the beginning of each output's piece of a row. */
enum { OUTPUT, TOKEN, TOKENS, COLUMNS, RED, GREEN, BLUE };

Pictures pictures_of(const Instance *instance, const RKLLMInput *input) {
    Pictures pictures = {0};
    if (input->input_type != RKLLM_INPUT_MULTIMODAL) return pictures;
    __typeof__(&input->multimodal_input) multi = &input->multimodal_input;
#if HAS_RUN_SAMPLING
    (void)instance;
    pictures = (Pictures){.rows = multi->image.image_embed,
                          .count = multi->image.n_image,
                          .tokens = multi->image.n_image_tokens,
                          .start = multi->image.image_start,
                          .end = multi->image.image_end,
                          .content = multi->image.image_content};
#else
    pictures = (Pictures){.rows = multi->image_embed,
                          .count = 1,
                          .tokens = multi->n_image_tokens,
                          .start = instance->param.img_start,
                          .end = instance->param.img_end,
                          .content = instance->param.img_content};
#if HAS_IMAGES
    pictures.count = multi->n_image;
#endif
#endif
    return pictures;
}

/* Abort where a row of the virtual encoder lacks an output, or has it in another's place. */
static bool is_ours(const float *row, size_t token, size_t width, size_t outputs) {
    if (row[OUTPUT] != FIRST_OUTPUT) return false;
    for (size_t output = 0; output < outputs; output++) {
        const float *piece = row + output * width;
        if (piece[OUTPUT] != FIRST_OUTPUT + (float)output || piece[TOKEN] != (float)token)
            reject("token %zu: output %zu is not where it belongs in the embeddings", token, output);
    }
    return true;
}

/* Append the mean colours of the cells of one picture. */
static void describe(FILE *out, const float *rows, size_t tokens, size_t width, size_t outputs) {
    double sums[CELLS][CELLS][3] = {0};
    size_t counts[CELLS][CELLS] = {0};
    for (size_t token = 0; token < tokens; token++) {
        const float *row = rows + token * width * outputs;
        if (!is_ours(row, token, width, outputs)) {
            fputs(" unknown", out);
            return;
        }
        if (row[TOKENS] != (float)tokens) reject("a picture of %g tokens, not %zu", (double)row[TOKENS], tokens);
        size_t columns = (size_t)row[COLUMNS], lines = tokens / columns;
        size_t y = token / columns * CELLS / lines, x = token % columns * CELLS / columns;
        for (int c = 0; c < 3; c++) sums[y][x][c] += (double)row[RED + c];
        counts[y][x]++;
    }
    for (int y = 0; y < CELLS; y++)
        for (int x = 0; x < CELLS; x++) {
            fputs(counts[y][x] ? " #" : " -", out);
            for (int c = 0; c < 3 && counts[y][x]; c++)
                fprintf(out, "%02lx", lround(sums[y][x][c] / (double)counts[y][x]));
        }
}

static bool is_vector(int32_t id) {
    return id < -1;
}

static bool has_vectors(const Ids *ids, size_t from) {
    for (size_t i = from; i < ids->length; i++)
        if (is_vector(ids->id[i])) return true;
    return false;
}

/* Whether the KV cache holds another picture in this one's place: what 1.3.0 then tells is garbage. */
static bool is_stale(const Slot *slot) {
    size_t same = 0;
    while (same < slot->kv.length && same < slot->prompt.length &&
           slot->kv.id[same] == slot->prompt.id[same])
        same++;
    return HAS_HISTORY && has_vectors(&slot->kv, same) && has_vectors(&slot->prompt, same);
}

char *pictures_describe(const Slot *slot, const Pictures *pictures, size_t width, size_t outputs) {
    char *text = NULL;
    size_t length;
    FILE *out = open_memstream(&text, &length);
    const char *instead = !pictures->count                               ? "no picture"
                          : is_stale(slot)                               ? "garbage"
                          : !HAS_RUN_SAMPLING && pictures->count > 1     ? "blended"
                                                                         : NULL;
    if (instead) fputs(instead, out);
    for (size_t i = 0; i < pictures->count && !instead; i++) {
        fprintf(out, "%spicture %zu:", i ? "\n" : "", i + 1);
        describe(out, pictures->rows + i * pictures->tokens * width * outputs, pictures->tokens,
                 width, outputs);
    }
    fclose(out);
    return text;
}
