/* AMX over panels of weights in bfloat16: up to 32 rows of x times 32 outputs. Sums are in registers
 * 0 to 3 (rows above: left, right; rows below: left, right), x in 4 and 5, the panel in 6 and 7.
 */
#ifndef MILLRACE_PANEL_TILES_H
#define MILLRACE_PANEL_TILES_H

#include "regions.h"
#include "tiles.h"
#include "vectors.h"

#define DEPTH 32 /* inputs that a tile holds */

INLINE void clear_sums(void) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

/* Adds to the sums what DEPTH inputs contribute; `two`: of the rows below, too. PERF: weights that
 * come from the L2 cache are read past L1, where x stays: a fifth faster. */
INLINE void multiply_tiles(const int two, const int past_l1, const bf16 *high, const bf16 *low,
                         int64_t stride_bytes, const bf16 *weights) {
    _tile_loadd(4, high, stride_bytes);
    if (past_l1) {
        _tile_stream_loadd(6, weights, 2 * PANEL * sizeof(bf16));
        _tile_stream_loadd(7, weights + PANEL, 2 * PANEL * sizeof(bf16));
    } else {
        _tile_loadd(6, weights, 2 * PANEL * sizeof(bf16));
        _tile_loadd(7, weights + PANEL, 2 * PANEL * sizeof(bf16));
    }
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    if (two) {
        _tile_loadd(5, low, stride_bytes);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
}

#endif
