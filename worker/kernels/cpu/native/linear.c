/* Linear layers in bfloat16: y[M, N] = x[M, K] w[N, K]^T + bias[N], sums in float32; y in bfloat16
 * or, for the output layer, in float32. Gated ones go on to silu(gate) * up: the first half of w's
 * rows are gates, the others their ups, and y is [M, N / 2].
 *
 * Weights are packed once, in panels of 32 outputs: [N / 32][K / 2][32][2]. A panel is read from
 * front to back: by dot products of pairs for few rows, which is as fast as memory, and as tiles by
 * AMX for more. N is padded with zeros to a multiple of 32; K must be one. A panel of a gated layer
 * has 16 gates and then their ups; N / 2 must be a multiple of 16.
 */
#include "element_bf16.h"
#include "regions.h"
#include "results.h"

#include <stddef.h>

#define ROWS 8         /* of x at a time, in registers */
#define MOST_ROWS 1024 /* of x, packed at a time */

EXPORT int64_t linear_packed_elements(int64_t outputs, int64_t inputs) {
    return (outputs + PANEL - 1) / PANEL * PANEL * inputs;
}

EXPORT void linear_pack(const bf16 *weight, bf16 *packed, int64_t outputs, int64_t inputs,
                        int64_t gated) {
    int64_t panels = (outputs + PANEL - 1) / PANEL;
#pragma omp parallel for
    for (int64_t p = 0; p < panels; p++) {
        bf16 *to = packed + p * PANEL * inputs;
        const bf16 *rows[PANEL];
        for (int64_t i = 0; i < PANEL; i++) {
            int64_t n = p * PANEL + i;
            if (gated) n = p * LANES + i % LANES + i / LANES * (outputs / 2);
            rows[i] = n < outputs ? weight + n * inputs : NULL;
        }
        for (int64_t k = 0; k < inputs; k += 2)
            for (int64_t i = 0; i < PANEL; i++, to += 2) {
                to[0] = rows[i] ? rows[i][k] : 0;
                to[1] = rows[i] ? rows[i][k + 1] : 0;
            }
    }
}

INLINE int64_t panels_of(const Linear *layer) { return (layer->outputs + PANEL - 1) / PANEL; }

/* --- few rows: dot products ------------------------------------------------------------------ */

/* rows <= ROWS rows of x, one panel. For few rows the sum is split, so that no addition waits. */
INLINE void panel_rows(const int rows, const bf16 *x, const bf16 *panel, const Output *y,
                       int64_t row, int64_t inputs, int64_t first) {
    const int chains = rows == 1 ? 4 : rows <= 3 ? 2 : 1;
    f32x16 sums[ROWS][2][4];
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < chains; c++) sums[r][0][c] = sums[r][1][c] = splat(0);
    for (int64_t k = 0; k < inputs; k += 2 * chains) {
#pragma GCC unroll 4
        for (int c = 0; c < chains; c++) {
            const bf16 *w = panel + (k + 2 * c) * PANEL;
            __builtin_prefetch(w + 64 * PANEL, 0, 2);
            __builtin_prefetch(w + 65 * PANEL, 0, 2);
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++) {
                const bf16 *pair = x + r * inputs + k + 2 * c;
                sums[r][0][c] = dot_pairs(sums[r][0][c], w, pair);
                sums[r][1][c] = dot_pairs(sums[r][1][c], w + 2 * LANES, pair);
            }
        }
    }
    for (int r = 0; r < rows; r++) {
        f32x16 left = sums[r][0][0], right = sums[r][1][0];
        for (int c = 1; c < chains; c++) {
            left += sums[r][0][c];
            right += sums[r][1][c];
        }
        put(y, row + r, first, left, right);
    }
}

static void panel_few(int64_t rows, const bf16 *x, const bf16 *panel, const Output *y,
                      int64_t inputs, int64_t first) {
    for (int64_t row = 0; row < rows; row += ROWS, x += ROWS * inputs) switch (rows - row) {
            case 1: panel_rows(1, x, panel, y, row, inputs, first); break;
            case 2: panel_rows(2, x, panel, y, row, inputs, first); break;
            case 3: panel_rows(3, x, panel, y, row, inputs, first); break;
            case 4: panel_rows(4, x, panel, y, row, inputs, first); break;
            case 5: panel_rows(5, x, panel, y, row, inputs, first); break;
            case 6: panel_rows(6, x, panel, y, row, inputs, first); break;
            case 7: panel_rows(7, x, panel, y, row, inputs, first); break;
            default: panel_rows(8, x, panel, y, row, inputs, first);
        }
}

/* --- more: tiles ----------------------------------------------------------------------------- */

#if defined(__AMX_BF16__)

#include "linear_tiles.h"

#else

EXPORT int linear_prepare(void) { return 0; }

#endif

/* --- a layer --------------------------------------------------------------------------------- */

/* Whether so many rows are better handed over in tiles. */
int linear_takes_tiles(int64_t rows) {
#if defined(__AMX_BF16__)
    return rows >= AMX_ROWS;
#else
    (void)rows;
    return 0;
#endif
}

/* As linear_bf16; x and a gated y may be in tiles. */
void linear_region(const Linear *layer, const bf16 *x, int x_tiled, void *y, int y_tiled,
                   int64_t rows, const Linear *then, Share share) {
    const int64_t inputs = layer->inputs, panels = panels_of(layer);
    const Output to = output_of(layer, y, y_tiled);
    int64_t from = share_of(panels, share.own, share);
    const int64_t beyond = share_of(panels, share.own + 1, share);
#if defined(__AMX_BF16__)
    if (x_tiled || rows >= AMX_ROWS) {
        const Operands of = {x, layer->weights, x_tiled, rows, inputs};
        panels_many(&of, &to, from, beyond, then ? first_of(then, rows, share) : (Wanted){0});
        _tile_release();
        from = beyond;
    }
#else
    (void)then; /* nothing is asked for beforehand */
#endif
    for (int64_t p = from; p < beyond; p++)
        panel_few(rows, x, layer->weights + p * PANEL * inputs, &to, inputs, p * PANEL);
    meet(share);
}

/* Elements of scratch that so many rows need. */
EXPORT int64_t linear_scratch_elements(int64_t rows, int64_t inputs) {
    if (rows <= 32 || !linear_takes_tiles(rows)) return 0;
    return least((rows + 15) / 16 * 16, MOST_ROWS) * inputs;
}

EXPORT void linear_bf16(const Linear *layer, const bf16 *x, void *y, bf16 *scratch, int64_t rows) {
    const int64_t inputs = layer->inputs;
    const int64_t row_bytes = output_of(layer, y, 0).width * (layer->kind == WIDE ? 4 : 2);
    Meeting meeting = {0};
#pragma omp parallel
    {
        const Share share = team_share(&meeting);
        for (int64_t r = 0; r < rows; r += MOST_ROWS) {
            int64_t n = least(rows - r, MOST_ROWS);
            const bf16 *some = x + r * inputs;
            void *to = (char *)y + r * row_bytes;
#if defined(__AMX_BF16__)
            if (n > 2 * TILE) {
                const int64_t tiles = (n + TILE - 1) / TILE;
                const int64_t beyond = share_of(tiles, share.own + 1, share) * TILE;
                for (int64_t s = share_of(tiles, share.own, share) * TILE; s < beyond; s += TILE)
                    pack_rows(least(n - s, TILE), some + s * inputs, scratch + s * inputs, inputs);
                meet(share);
                linear_region(layer, scratch, 1, to, 0, n, NULL, share);
                continue;
            }
#endif
            (void)scratch; /* not without tiles */
            linear_region(layer, some, 0, to, 0, n, NULL, share);
        }
    }
}
