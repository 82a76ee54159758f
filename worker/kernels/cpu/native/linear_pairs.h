/* Linear layers of bfloat16, two inputs side by side: few rows by dot products of pairs, which is
 * as fast as memory, more by AMX where there is that. Belongs to linear.h.
 */
#define ROWS 8 /* of x at a time, in registers */

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

static void panel_of_rows(int64_t rows, const bf16 *x, const bf16 *panel, const Output *y,
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

/* Panels `from` to `beyond`. */
static void panels_by_rows(const Linear *layer, const bf16 *x, int64_t rows, int64_t from,
                           int64_t beyond, const Output *y) {
    const bf16 *weights = layer->weights;
    for (int64_t p = from; p < beyond; p++)
        panel_of_rows(rows, x, weights + p * PANEL * layer->inputs, y, layer->inputs, p * PANEL);
}

#if defined(__AMX_BF16__)

#include "linear_tiles.h"

#else

EXPORT int linear_prepare(void) { return 0; }

#endif
