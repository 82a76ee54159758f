/* The products of attention for a tile of queries, in bfloat16 by AMX: tiles 0-3 are sums, 4 queries
 * and 5 keys, 6 weights and 7 values, which have half a tile's depth because a block has 16 tokens.
 */
#include "tiles.h"

/* For `rows` queries at a time. */
static void configure_attention(int64_t rows) {
    TileConfig config = {.palette = 1};
    for (int t = 0; t < 8; t++) {
        config.bytes[t] = t == 6 ? 32 : 64;
        config.rows[t] = (uint8_t)(t == 5 ? TILE : t == 7 ? TILE / 2 : rows);
    }
    _tile_loadconfig(&config);
}

/* scores [rows, `width` apart]: 16 for each of the blocks of keys. */
static void tile_scores(const bf16 *queries, const bf16 *const *keys, int64_t blocks, float *scores,
                        int64_t width, int64_t dim) {
    for (int64_t b = 0; b < blocks; b++) {
        _tile_zero(0);
        for (int64_t i = 0; i < dim; i += 2 * TILE) {
            _tile_loadd(4, queries + i, dim * sizeof(bf16));
            _tile_loadd(5, keys[b] + i * TILE, 64);
            _tile_dpbf16ps(0, 4, 5);
        }
        _tile_stored(0, scores + b * TILE, width * sizeof(float));
    }
}

/* sums [rows, dim] += weights [rows, `width` apart] times the blocks' values. */
static void tile_mix(const bf16 *weights, const bf16 *const *values, int64_t blocks, float *sums,
                     int64_t width, int64_t dim) {
    const int64_t wide = dim * sizeof(float), far = width * sizeof(bf16);
    int64_t d = 0;
    for (; d + 4 * TILE <= dim; d += 4 * TILE) {
        _tile_loadd(0, sums + d, wide);
        _tile_loadd(1, sums + d + TILE, wide);
        _tile_loadd(2, sums + d + 2 * TILE, wide);
        _tile_loadd(3, sums + d + 3 * TILE, wide);
        for (int64_t b = 0; b < blocks; b++) {
            const bf16 *block = values[b] + 2 * d;
            _tile_loadd(6, weights + b * TILE, far);
            _tile_loadd(7, block, wide);
            _tile_dpbf16ps(0, 6, 7);
            _tile_loadd(7, block + 2 * TILE, wide);
            _tile_dpbf16ps(1, 6, 7);
            _tile_loadd(7, block + 4 * TILE, wide);
            _tile_dpbf16ps(2, 6, 7);
            _tile_loadd(7, block + 6 * TILE, wide);
            _tile_dpbf16ps(3, 6, 7);
        }
        _tile_stored(0, sums + d, wide);
        _tile_stored(1, sums + d + TILE, wide);
        _tile_stored(2, sums + d + 2 * TILE, wide);
        _tile_stored(3, sums + d + 3 * TILE, wide);
    }
    for (; d < dim; d += TILE) {
        _tile_loadd(0, sums + d, wide);
        for (int64_t b = 0; b < blocks; b++) {
            _tile_loadd(6, weights + b * TILE, far);
            _tile_loadd(7, values[b] + 2 * d, wide);
            _tile_dpbf16ps(0, 6, 7);
        }
        _tile_stored(0, sums + d, wide);
    }
}
