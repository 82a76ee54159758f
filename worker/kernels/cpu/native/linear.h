/* Linear layers: y[M, N] = x[M, K] w[N, K]^T + bias[N], sums in float32; y as x or, for the output
 * layer, in float32. Gated ones go on to silu(gate) * up: the first half of w's rows are gates, the
 * others their ups, and y is [M, N / 2].
 *
 * Weights are in panels (linear_pack.c). K is a multiple of 32. For the element type that the
 * including file defines (see attention.h).
 */
#include "regions.h"
#include "results.h"

#include <stddef.h>

#define MOST_ROWS 1024 /* of x, packed at a time */

INLINE int64_t panels_of(const Linear *layer) { return (layer->outputs + PANEL - 1) / PANEL; }

#if STEP == 2
#include "linear_pairs.h"
#else
#include "linear_singles.h"
#endif

/* Whether so many rows are better handed over in tiles. */
int NAME(linear_takes_tiles)(int64_t rows) {
#if defined(AMX_ROWS)
    return rows >= AMX_ROWS;
#else
    (void)rows;
    return 0;
#endif
}

/* As the exported function below; x and a gated y may be in tiles. */
void NAME(linear_region)(const Linear *layer, const ELEMENT *x, int x_tiled, void *y, int y_tiled,
                         int64_t rows, const Linear *then, Share share) {
    const Output to = output_of(layer, y, y_tiled);
    for (Work work = parts_of(panels_of(layer), share); next_part(&work);) {
#if defined(AMX_ROWS)
        if (x_tiled || rows >= AMX_ROWS) {
            const Operands of = {x, layer->weights, x_tiled, rows, layer->inputs};
            const Wanted wanted = then ? first_of(then, rows, share) : (Wanted){0};
            panels_many(&of, &to, work.first, work.beyond, wanted);
            _tile_release();
            continue;
        }
#endif
        (void)x_tiled, (void)then; /* no tiles, and nothing is asked for beforehand */
        panels_by_rows(layer, x, rows, work.first, work.beyond, &to);
    }
}

/* Elements of scratch that so many rows need. */
EXPORT int64_t NAME(linear_scratch_elements)(int64_t rows, int64_t inputs) {
    if (rows <= 32 || !NAME(linear_takes_tiles)(rows)) return 0;
    return least((rows + 15) / 16 * 16, MOST_ROWS) * inputs;
}

EXPORT void NAME(linear)(const Linear *layer, const ELEMENT *x, void *y, ELEMENT *scratch,
                         int64_t rows) {
    const int64_t inputs = layer->inputs, width = output_of(layer, y, 0).width;
    const int64_t row_bytes =
        width * (int64_t)(layer->kind == WIDE ? sizeof(float) : sizeof(ELEMENT));
    Team *team = new_team();
#pragma omp parallel
    {
        const Share share = team_share(team);
        for (int64_t r = 0; r < rows; r += MOST_ROWS) {
            int64_t n = least(rows - r, MOST_ROWS);
            const ELEMENT *some = x + r * inputs;
            void *to = (char *)y + r * row_bytes;
#if defined(AMX_ROWS)
            if (n > 2 * TILE) {
                for (Work work = parts_of((n + TILE - 1) / TILE, share); next_part(&work);)
                    for (int64_t s = work.first * TILE; s < work.beyond * TILE; s += TILE)
                        pack_rows(least(n - s, TILE), some + s * inputs, scratch + s * inputs,
                                  inputs);
                NAME(linear_region)(layer, scratch, 1, to, 0, n, NULL, share);
                continue;
            }
#endif
            (void)scratch; /* not without tiles */
            NAME(linear_region)(layer, some, 0, to, 0, n, NULL, share);
        }
    }
}
