/* The products of attention by AMX in bfloat16, for up to 32 queries, two tiles of rows, high and
 * low, against the same keys and values. One configuration serves both products: sums in 0 and 1
 * (high), 2 and 3 (low), left operands in 4 (high) and 5 (low), right ones in 6 and 7.
 */
#include "attention_step.h"
#include "tiles.h"

#define TILE_KEYS (4 * BLOCK) /* keys at a time */
#define SQUARE (TILE * TILE)  /* scores of 16 queries and a block */

/* A tile of queries against some keys. Scores are squares, those of the high rows first, of block
 * after block; weights, 16 rows of 32 keys, lie in the place of the first of two. */
typedef struct {
    const bf16 *queries; /* [32][dim]; dim is a multiple of 32 */
    float *sums;         /* [32][dim] */
    float *scores;       /* [2][TILE_KEYS / 16][16][16] */
    int64_t dim;
    int two; /* whether there are low rows */
} TileProduct;

#define HALF_SCORES (TILE * TILE_KEYS)

/* For `rows` queries; of fewer, the others are computed for nothing. */
static void tiles_begin(int64_t rows) {
    TileConfig config = {.palette = 1};
    const uint8_t high = (uint8_t)least(rows, TILE), low = (uint8_t)(rows - high);
    for (int t = 0; t < 8; t++) {
        const int is_low = t == 2 || t == 3 || t == 5;
        config.bytes[t] = 64;
        config.rows[t] = t >= 6 ? TILE : !is_low ? high : low ? low : 1;
    }
    tiles_configure(&config);
}

/* Scores of two blocks of keys [dim / 2][16][2], of which the second may be missing. */
INLINE void score_two(const TileProduct *of, const int both, const bf16 *first, const bf16 *second,
                      float *to) {
    const int64_t far = of->dim * sizeof(bf16);
    const bf16 *high = of->queries, *low = high + TILE * of->dim;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t i = 0; i < of->dim; i += 2 * TILE) {
        _tile_loadd(4, high + i, far);
        _tile_loadd(6, first + i * TILE, 64);
        _tile_dpbf16ps(0, 4, 6);
        if (both) {
            _tile_loadd(7, second + i * TILE, 64);
            _tile_dpbf16ps(1, 4, 7);
        }
        if (of->two) {
            _tile_loadd(5, low + i, far);
            _tile_dpbf16ps(2, 5, 6);
            if (both) _tile_dpbf16ps(3, 5, 7);
        }
    }
    _tile_stored(0, to, 64);
    if (both) _tile_stored(1, to + SQUARE, 64);
    if (of->two) {
        _tile_stored(2, to + HALF_SCORES, 64);
        if (both) _tile_stored(3, to + HALF_SCORES + SQUARE, 64);
    }
}

static void tile_scores(const TileProduct *of, const bf16 *const *keys, int64_t blocks) {
    tiles_will_read(of->scores);
    for (int64_t b = 0; b + 1 < blocks; b += 2)
        score_two(of, 1, keys[b], keys[b + 1], of->scores + b * SQUARE);
    if (blocks % 2) score_two(of, 0, keys[blocks - 1], NULL, of->scores + (blocks - 1) * SQUARE);
}

/* Adds weights times values [pairs][32 / 2][dim][2] to the sums, or begins those. */
static void tile_mix(const TileProduct *of, const bf16 *values, int64_t pairs, int begins) {
    const int64_t wide = of->dim * sizeof(float);
    const int two = of->two;
    tiles_will_read(of->scores);
    for (int64_t d = 0; d < of->dim; d += 2 * TILE) {
        float *high = of->sums + d, *low = high + TILE * of->dim;
        const bf16 *from = values + 2 * d;
        const float *weights = of->scores;
        if (begins) {
            _tile_zero(0);
            _tile_zero(1);
            _tile_zero(2);
            _tile_zero(3);
        } else {
            _tile_loadd(0, high, wide);
            _tile_loadd(1, high + TILE, wide);
            if (two) {
                _tile_loadd(2, low, wide);
                _tile_loadd(3, low + TILE, wide);
            }
        }
        for (int64_t p = 0; p < pairs; p++, weights += 2 * SQUARE, from += 2 * BLOCK * of->dim) {
            _tile_loadd(4, weights, 64);
            _tile_loadd(6, from, wide);
            _tile_dpbf16ps(0, 4, 6);
            _tile_loadd(7, from + 2 * TILE, wide);
            _tile_dpbf16ps(1, 4, 7);
            if (two) {
                _tile_loadd(5, weights + HALF_SCORES, 64);
                _tile_dpbf16ps(2, 5, 6);
                _tile_dpbf16ps(3, 5, 7);
            }
        }
        _tile_stored(0, high, wide);
        _tile_stored(1, high + TILE, wide);
        if (two) {
            _tile_stored(2, low, wide);
            _tile_stored(3, low + TILE, wide);
        }
    }
}
