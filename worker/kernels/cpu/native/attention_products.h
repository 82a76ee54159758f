/* Products of attention by the vector units, for the element types that the including file defines
 * (see attention.h): scores of queries and keys, sums of values. Meanwhile what is read later is
 * asked for.
 *
 * PERF: line by line, as lines that are there are used, and into the L2 cache: memory takes so many
 * requests at once, and while the others wait for that nothing is multiplied. */
#include "attention_step.h"
#include "vectors.h"

#define GROUP 8 /* blocks at a time */
#define KEYS (GROUP * BLOCK)

/* Queries, and 16s of a head's channels, whose sums registers hold. */
#define SCORE_ROWS (WIDTH == LANES ? 8 : 6)
#define MIX_ROWS (WIDTH == LANES ? 4 : 6)
#define MIX_LANES (WIDTH == LANES ? 4 : 1)

/* scores[rows][16] of one block of keys. `ahead`: a block that is read later. */
INLINE void NAME(scores_of)(const int rows, const ELEMENT *queries, const CACHED *keys,
                            const CACHED *ahead, float *scores, int64_t dim) {
    const int chains = rows <= SCORE_ROWS / 2 ? 2 : 1;
    Lanes sums[8][2][PARTS] = {0};
    for (int64_t i = 0; i < dim; i += STEP * chains)
#pragma GCC unroll 2
        for (int c = 0; c < chains; c++) {
            __builtin_prefetch(ahead + (i + c * STEP) * BLOCK, 0, 2);
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
                for (int p = 0; p < PARTS; p++)
                    sums[r][c][p] = multiply_add(
                        sums[r][c][p], keys + (i + c * STEP) * BLOCK + p * WIDTH * STEP,
                        queries + r * dim + i + c * STEP);
        }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int p = 0; p < PARTS; p++)
            *(Lanes *)(scores + r * KEYS + p * WIDTH) =
                chains == 2 ? sums[r][0][p] + sums[r][1][p] : sums[r][0][p];
}

static void NAME(scores)(int64_t rows, const ELEMENT *queries, const CACHED *keys,
                         const CACHED *ahead, float *scores, int64_t dim) {
    for (; rows > 0; rows -= SCORE_ROWS, queries += SCORE_ROWS * dim, scores += SCORE_ROWS * KEYS)
        switch (least(rows, SCORE_ROWS)) {
            case 1: NAME(scores_of)(1, queries, keys, ahead, scores, dim); break;
            case 2: NAME(scores_of)(2, queries, keys, ahead, scores, dim); break;
            case 3: NAME(scores_of)(3, queries, keys, ahead, scores, dim); break;
            case 4: NAME(scores_of)(4, queries, keys, ahead, scores, dim); break;
            case 5: NAME(scores_of)(5, queries, keys, ahead, scores, dim); break;
            case 6: NAME(scores_of)(6, queries, keys, ahead, scores, dim); break;
            case 7: NAME(scores_of)(7, queries, keys, ahead, scores, dim); break;
            default: NAME(scores_of)(8, queries, keys, ahead, scores, dim);
        }
}

/* sums[rows][dim] += weights[rows][16 per block] values, for some blocks and 16 · lanes of dim.
 * Each block has one `ahead`. */
INLINE void NAME(mix_of)(const int rows, const int lanes, const ELEMENT *weights,
                         const CACHED *const *values, const CACHED *const *ahead, int64_t blocks,
                         float *sums, int64_t dim) {
    const int parts = lanes * PARTS;
    Lanes acc[MIX_ROWS][4 * PARTS];
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int d = 0; d < parts; d++) acc[r][d] = *(Lanes *)(sums + r * dim + d * WIDTH);
    for (int64_t b = 0; b < blocks; b++) {
        const CACHED *block = values[b], *later = ahead[b];
        for (int64_t j = 0; j < BLOCK / STEP; j++) {
#pragma GCC unroll 4
            for (int d = 0; d < lanes; d++)
                __builtin_prefetch(later + (j * dim + d * LANES) * STEP, 0, 2);
#pragma GCC unroll 6
            for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
                for (int d = 0; d < parts; d++)
                    acc[r][d] = multiply_add(acc[r][d], block + (j * dim + d * WIDTH) * STEP,
                                             weights + r * KEYS + b * BLOCK + j * STEP);
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int d = 0; d < parts; d++) *(Lanes *)(sums + r * dim + d * WIDTH) = acc[r][d];
}

INLINE void NAME(mix_rows)(const int rows, const ELEMENT *weights, const CACHED *const *values,
                           const CACHED *const *ahead, int64_t blocks, float *sums, int64_t dim) {
    const CACHED *shifted[GROUP], *later[GROUP];
    for (int64_t d = 0; d < dim; d += MIX_LANES * LANES) {
        for (int64_t b = 0; b < blocks; b++) {
            shifted[b] = values[b] + d * STEP;
            later[b] = ahead[b] + d * STEP;
        }
        switch (least((dim - d) / LANES, MIX_LANES)) {
            case 1: NAME(mix_of)(rows, 1, weights, shifted, later, blocks, sums + d, dim); break;
#if MIX_LANES > 1
            case 2: NAME(mix_of)(rows, 2, weights, shifted, later, blocks, sums + d, dim); break;
            case 3: NAME(mix_of)(rows, 3, weights, shifted, later, blocks, sums + d, dim); break;
            default: NAME(mix_of)(rows, 4, weights, shifted, later, blocks, sums + d, dim);
#endif
        }
    }
}

static void NAME(mix)(int64_t rows, const ELEMENT *weights, const CACHED *const *values,
                      const CACHED *const *ahead, int64_t blocks, float *sums, int64_t dim) {
    for (; rows > 0; rows -= MIX_ROWS, weights += MIX_ROWS * KEYS, sums += MIX_ROWS * dim)
        switch (least(rows, MIX_ROWS)) {
            case 1: NAME(mix_rows)(1, weights, values, ahead, blocks, sums, dim); break;
            case 2: NAME(mix_rows)(2, weights, values, ahead, blocks, sums, dim); break;
            case 3: NAME(mix_rows)(3, weights, values, ahead, blocks, sums, dim); break;
#if MIX_ROWS > 4
            case 4: NAME(mix_rows)(4, weights, values, ahead, blocks, sums, dim); break;
            case 5: NAME(mix_rows)(5, weights, values, ahead, blocks, sums, dim); break;
#endif
            default: NAME(mix_rows)(MIX_ROWS, weights, values, ahead, blocks, sums, dim);
        }
}
