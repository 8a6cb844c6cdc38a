#include "embed.h"

#include <math.h>
#include <stdlib.h>

/* The virtual NPU reads the first seven numbers of a piece: see its picture.c. */
enum { OUTPUT, TOKEN, TOKENS, COLUMNS, RED, GREEN, BLUE, HASH, FIRST_FREE };

uint32_t hash_pixels(const Script *script, const uint8_t *pixels) {
    uint32_t hash = 2166136261u;
    for (int64_t i = 0; i < script->height * script->width * 3; i++)
        hash = (hash ^ pixels[i]) * 16777619u;
    return hash;
}

/* The tokens lie in lines, as many as divide them and come nearest to a square. */
static int64_t lines_of(int64_t tokens) {
    int64_t lines = 1;
    for (int64_t n = 1; n * n <= tokens; n++)
        if (tokens % n == 0) lines = n;
    return lines;
}

/* Put the mean colour of a token's part of the picture into `colour`. */
static void mean(const Script *script, const uint8_t *pixels, int64_t token, float *colour) {
    int64_t lines = lines_of(script->tokens), columns = script->tokens / lines;
    int64_t top = token / columns * script->height / lines;
    int64_t bottom = (token / columns + 1) * script->height / lines;
    int64_t left = token % columns * script->width / columns;
    int64_t right = (token % columns + 1) * script->width / columns;
    double sums[3] = {0}, count = (double)((bottom - top) * (right - left));
    for (int64_t y = top; y < bottom; y++)
        for (int64_t x = left; x < right; x++)
            for (int c = 0; c < 3; c++) sums[c] += pixels[(y * script->width + x) * 3 + c];
    for (int c = 0; c < 3; c++) colour[c] = count > 0 ? (float)(sums[c] / count) : 0;
}

float *embed(const Script *script, const uint8_t *pixels, int64_t output) {
    int64_t width = script->embedding;
    float *rows = calloc((size_t)(script->tokens * width), sizeof *rows);
    uint32_t hash = hash_pixels(script, pixels);
    for (int64_t token = 0; token < script->tokens; token++) {
        float *row = rows + token * width;
        row[OUTPUT] = 1000.0f + (float)output;
        row[TOKEN] = (float)token;
        row[TOKENS] = (float)script->tokens;
        row[COLUMNS] = (float)(script->tokens / lines_of(script->tokens));
        mean(script, pixels, token, row + RED);
        row[HASH] = (float)(hash & 0xFFFFFF);
        for (int64_t i = FIRST_FREE; i < width; i++)
            row[i] = (float)sin((double)(hash % 1009) + (double)(token * 31 + i * 7 + output));
    }
    return rows;
}
