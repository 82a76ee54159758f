/* The products of attention for up to 32 queries, in bfloat16 by AMX: two tiles of rows, high and low,
 * against the same keys and values. Scores take whole tiles; mixing takes half a tile's depth, because
 * a block has 16 tokens, and so another configuration of the registers.
 */
#include "tiles.h"

typedef struct {
    TileConfig scores, mix;
} AttentionTiles;

/* For `rows` queries at a time. Scores: sums 0 and 1, queries 2-5 (high and low, two steps of depth),
 * keys 6 and 7. Mixing: sums 0-3 (high and low, two tiles of columns), weights 4 and 5, values 6 and
 * 7. */
static AttentionTiles attention_tiles(int64_t rows) {
    AttentionTiles tiles = {{.palette = 1}, {.palette = 1}};
    const uint8_t high = (uint8_t)(rows < TILE ? rows : TILE), low = (uint8_t)(rows - high);
    for (int t = 0; t < 8; t++) {
        int is_low = t == 1 || t == 4 || t == 5;
        tiles.scores.bytes[t] = 64;
        tiles.scores.rows[t] = t >= 6 ? TILE : !is_low ? high : low ? low : 1;
        is_low = t == 2 || t == 3 || t == 5;
        tiles.mix.bytes[t] = t == 4 || t == 5 ? 32 : 64;
        tiles.mix.rows[t] = t >= 6 ? TILE / 2 : !is_low ? high : low ? low : 1;
    }
    return tiles;
}

/* scores [rows, `width` apart]: 16 for each of the blocks of keys; dim is a multiple of 32. */
INLINE void tile_scores_of(const int two, const int deep, const bf16 *queries,
                           const bf16 *const *keys, int64_t blocks, float *scores, int64_t width,
                           int64_t dim) {
    const int64_t far = dim * sizeof(bf16), wide = width * sizeof(float);
    const bf16 *low = queries + TILE * dim;
    if (!deep) { /* PERF: queries of up to 64 channels stay in the registers */
        _tile_loadd(2, queries, far);
        if (two) _tile_loadd(4, low, far);
        if (dim > 2 * TILE) {
            _tile_loadd(3, queries + 2 * TILE, far);
            if (two) _tile_loadd(5, low + 2 * TILE, far);
        }
    }
    for (int64_t b = 0; b < blocks; b++) {
        _tile_zero(0);
        _tile_zero(1);
        for (int64_t i = 0; i < dim; i += 4 * TILE) {
            const int whole = i + 2 * TILE < dim;
            if (deep) {
                _tile_loadd(2, queries + i, far);
                if (two) _tile_loadd(4, low + i, far);
            }
            _tile_stream_loadd(6, keys[b] + i * TILE, 64);
            _tile_dpbf16ps(0, 2, 6);
            if (two) _tile_dpbf16ps(1, 4, 6);
            if (!whole) break;
            if (deep) {
                _tile_loadd(3, queries + i + 2 * TILE, far);
                if (two) _tile_loadd(5, low + i + 2 * TILE, far);
            }
            _tile_stream_loadd(7, keys[b] + (i + 2 * TILE) * TILE, 64);
            _tile_dpbf16ps(0, 3, 7);
            if (two) _tile_dpbf16ps(1, 5, 7);
        }
        _tile_stored(0, scores + b * TILE, wide);
        if (two) _tile_stored(1, scores + TILE * width + b * TILE, wide);
    }
}

static void tile_scores(const AttentionTiles *tiles, int64_t rows, const bf16 *queries,
                        const bf16 *const *keys, int64_t blocks, float *scores, int64_t width,
                        int64_t dim) {
    _tile_loadconfig(&tiles->scores);
    if (rows <= TILE && dim <= 4 * TILE)
        tile_scores_of(0, 0, queries, keys, blocks, scores, width, dim);
    else if (rows <= TILE)
        tile_scores_of(0, 1, queries, keys, blocks, scores, width, dim);
    else if (dim <= 4 * TILE)
        tile_scores_of(1, 0, queries, keys, blocks, scores, width, dim);
    else
        tile_scores_of(1, 1, queries, keys, blocks, scores, width, dim);
}

/* sums [rows, dim] += weights [rows, `width` apart] times the blocks' values. */
INLINE void tile_mix_of(const int two, const bf16 *weights, const bf16 *const *values,
                        int64_t blocks, float *sums, int64_t width, int64_t dim) {
    const int64_t wide = dim * sizeof(float), far = width * sizeof(bf16);
    const bf16 *low_weights = weights + TILE * width;
    for (int64_t d = 0; d < dim; d += 2 * TILE) {
        float *high = sums + d, *low = high + TILE * dim;
        _tile_loadd(0, high, wide);
        _tile_loadd(1, high + TILE, wide);
        if (two) {
            _tile_loadd(2, low, wide);
            _tile_loadd(3, low + TILE, wide);
        }
        for (int64_t b = 0; b < blocks; b++) {
            _tile_loadd(4, weights + b * TILE, far);
            _tile_stream_loadd(6, values[b] + 2 * d, wide);
            _tile_dpbf16ps(0, 4, 6);
            _tile_stream_loadd(7, values[b] + 2 * (d + TILE), wide);
            _tile_dpbf16ps(1, 4, 7);
            if (two) {
                _tile_loadd(5, low_weights + b * TILE, far);
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

static void tile_mix(const AttentionTiles *tiles, int64_t rows, const bf16 *weights,
                     const bf16 *const *values, int64_t blocks, float *sums, int64_t width,
                     int64_t dim) {
    _tile_loadconfig(&tiles->mix);
    if (rows <= TILE) tile_mix_of(0, weights, values, blocks, sums, width, dim);
    else tile_mix_of(1, weights, values, blocks, sums, width, dim);
}
