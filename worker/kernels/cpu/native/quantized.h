/* Linear layers whose weights are codes: as linear.h's, y[M, N] = x[M, K] w[N, K]^T + bias[N] with sums
 * in float32, w[n][k] = number(code[n][k]) * scale[n][group of k] + offset[n][group of k].
 *
 * For few rows codes are unpacked in registers, each once, and a group's sums are scaled when they are
 * complete: what is read from memory is the codes. For more rows slices of a few panels are unpacked
 * into a buffer that stays in the caches while rows pass, with their scales where there are several to
 * an output. K and groups are multiples of 32.
 *
 * For the element type that the including file defines (see attention.h).
 */
#include "codes.h"
#include "results.h"

#include <stddef.h>

#define FEW_ROWS 2         /* of x: PERF: for more, codes are unpacked into a buffer */
#define MOST_INPUTS 2048   /* more are cut into slices */
#define SLICE 512          /* inputs */
#define SLICE_ROWS 512     /* of x, whose sums are kept */
#define SLICE_PANELS 8
#define BUFFER_BYTES (1 << 19)
#define FETCHED 2048       /* PERF: bytes of codes asked for ahead */

/* --- panels of codes ------------------------------------------------------------------------- */

/* One panel, and its layer's shape. */
typedef struct {
    const uint8_t *codes;
    const float *scales, *offsets;
    Table table;
    int64_t inputs, group, groups, first;
} Panel;

INLINE Panel panel_of(const Linear *layer, Table table, const int coding, int64_t number) {
    const Codes *codes = layer->codes;
    const int64_t groups = layer->inputs / codes->group, skipped = number * groups * PANEL;
    return (Panel){codes->codes + number * (layer->inputs / UNIT) * unit_bytes(coding),
                   codes->scales + skipped, codes->offsets ? codes->offsets + skipped : NULL, table,
                   layer->inputs, codes->group, groups, number * PANEL};
}

/* The sums of a row's groups, which offsets multiply; x may be in tiles. */
static void sum_groups(const ELEMENT *x, int tiled, int64_t row, int64_t inputs, int64_t group,
                       float *sums) {
    for (int64_t k = 0; k < inputs; k += group) {
        f32x16 sum = splat(0);
        for (int64_t i = k; i < k + group; i += LANES)
            sum += load16(x + place(tiled, row, i, inputs));
        *sums++ = sum_of(sum);
    }
}

/* What a group adds to an output's sums. */
INLINE f32x16 settle(const Panel *panel, int64_t group, int side, f32x16 sums, float sum_x) {
    const int64_t at = group * PANEL + side * LANES;
    sums *= load_f32(panel->scales + at);
    return panel->offsets ? sums + load_f32(panel->offsets + at) * sum_x : sums;
}

/* Some inputs of a panel to the elements that they stand for, [inputs / STEP][32][STEP]. */
INLINE void unpack_inputs(const int coding, const int with_scales, const Panel *panel, int64_t from,
                          int64_t beyond, ELEMENT *to) {
    const uint8_t *codes = panel->codes + from / UNIT * unit_bytes(coding);
    f32x16 scales[2] = {splat(1), splat(1)}, offsets[2] = {splat(0), splat(0)};
    for (int64_t k = from; k < beyond; k += UNIT, codes += unit_bytes(coding)) {
        Vector some[VECTORS][2];
        __builtin_prefetch(codes + FETCHED);
        if (coding != NIBBLE) __builtin_prefetch(codes + FETCHED + 64);
        unpack(coding, codes, panel->table, some);
        if (with_scales && (k == from || k % panel->group == 0)) {
            const int64_t at = k / panel->group * PANEL;
            for (int side = 0; side < 2; side++) {
                scales[side] = load_f32(panel->scales + at + side * LANES);
                if (panel->offsets) offsets[side] = load_f32(panel->offsets + at + side * LANES);
            }
        }
#pragma GCC unroll 4
        for (int i = 0; i < VECTORS; i++)
#pragma GCC unroll 2
            for (int side = 0; side < 2; side++, to += STEP * LANES) {
                Vector x = some[i][side];
                if (with_scales) x = scaled(x, scales[side], offsets[side]);
                store_vector(to, x);
            }
    }
}

static void unpack_any(int64_t coding, int with_scales, const Panel *panel, int64_t from,
                       int64_t beyond, ELEMENT *to) {
    switch (coding * 2 + with_scales) {
        case INTEGER * 2: unpack_inputs(INTEGER, 0, panel, from, beyond, to); break;
        case INTEGER * 2 + 1: unpack_inputs(INTEGER, 1, panel, from, beyond, to); break;
        case FLOAT8 * 2: unpack_inputs(FLOAT8, 0, panel, from, beyond, to); break;
        case FLOAT8 * 2 + 1: unpack_inputs(FLOAT8, 1, panel, from, beyond, to); break;
        case NIBBLE * 2: unpack_inputs(NIBBLE, 0, panel, from, beyond, to); break;
        default: unpack_inputs(NIBBLE, 1, panel, from, beyond, to);
    }
}

/* --- few rows: codes in registers ------------------------------------------------------------ */

/* `sums_x`: [rows][groups], of offsets. */
INLINE void panel_rows(const int rows, const int coding, const ELEMENT *x, const float *sums_x,
                       const Panel *panel, const Output *y) {
    const uint8_t *codes = panel->codes;
    f32x16 totals[FEW_ROWS][2];
    for (int r = 0; r < rows; r++) totals[r][0] = totals[r][1] = splat(0);
    for (int64_t g = 0; g < panel->groups; g++) {
        f32x16 sums[FEW_ROWS][2][2]; /* each in two, so that no addition waits */
        for (int r = 0; r < rows; r++)
            for (int c = 0; c < 2; c++) sums[r][0][c] = sums[r][1][c] = splat(0);
        const ELEMENT *from = x + g * panel->group;
        for (int64_t k = 0; k < panel->group; k += UNIT, codes += unit_bytes(coding)) {
            Vector some[VECTORS][2];
            __builtin_prefetch(codes + FETCHED);
            if (coding != NIBBLE) __builtin_prefetch(codes + FETCHED + 64);
            unpack(coding, codes, panel->table, some);
#pragma GCC unroll 2
            for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
                for (int i = 0; i < VECTORS; i++)
#pragma GCC unroll 2
                    for (int side = 0; side < 2; side++) {
                        f32x16 *sum = &sums[r][side][i % 2];
                        *sum = add_products(*sum, some[i][side],
                                            from + r * panel->inputs + k + i * STEP);
                    }
        }
        for (int r = 0; r < rows; r++)
            for (int side = 0; side < 2; side++) {
                const f32x16 sum = sums[r][side][0] + sums[r][side][1];
                const float sum_x = panel->offsets ? sums_x[r * panel->groups + g] : 0;
                totals[r][side] += settle(panel, g, side, sum, sum_x);
            }
    }
    for (int r = 0; r < rows; r++) put(y, r, panel->first, totals[r][0], totals[r][1]);
}

/* At most FEW_ROWS rows. */
INLINE void panels_few(const int coding, int64_t rows, const ELEMENT *x, const Linear *layer,
                       const Output *y, int64_t from, int64_t beyond) {
    const int64_t groups = layer->inputs / layer->codes->group;
    const Table table = table_of(layer->codes);
    float sums_x[FEW_ROWS * groups];
    if (layer->codes->offsets)
        for (int64_t r = 0; r < rows; r++)
            sum_groups(x, 0, r, layer->inputs, layer->codes->group, sums_x + r * groups);
    for (int64_t p = from; p < beyond; p++) {
        const Panel panel = panel_of(layer, table, coding, p);
        if (rows == 1) panel_rows(1, coding, x, sums_x, &panel, y);
        else panel_rows(2, coding, x, sums_x, &panel, y);
    }
}

static void panels_few_any(int64_t rows, const ELEMENT *x, const Linear *layer, const Output *y,
                           int64_t from, int64_t beyond) {
    switch (layer->codes->coding) {
        case INTEGER: panels_few(INTEGER, rows, x, layer, y, from, beyond); break;
        case FLOAT8: panels_few(FLOAT8, rows, x, layer, y, from, beyond); break;
        default: panels_few(NIBBLE, rows, x, layer, y, from, beyond);
    }
}

/* --- more rows: a buffer --------------------------------------------------------------------- */

#if STEP == 2 && defined(__AMX_BF16__)
#include "quantized_tiles.h"
#else
#include "quantized_rows.h"
#endif

#define MOST_STRIPS ((SLICE_ROWS + STRIP - 1) / STRIP)

/* A strip's sums to where they belong; `with_scales`: they have theirs already. */
static void put_strip(const Panel *panel, int with_scales, const float *totals, const float *sums_x,
                      int64_t row, int64_t rows, const Output *y) {
    for (int64_t r = 0; r < rows; r++) {
        f32x16 left = load_f32(totals + r * LANES), right = load_f32(totals + (STRIP + r) * LANES);
        if (!with_scales) {
            left = settle(panel, 0, 0, left, sums_x[row + r]);
            right = settle(panel, 0, 1, right, sums_x[row + r]);
        }
        put(y, row + r, panel->first, left, right);
    }
}

/* Panels `from` to `beyond`, for rows `first` to `first + rows`, at most SLICE_ROWS. */
static void panels_many(const Linear *layer, const ELEMENT *x, int tiled, int64_t first,
                        int64_t rows, int64_t from, int64_t beyond, const Output *y,
                        const float *sums_x) {
    ELEMENT buffer[BUFFER_BYTES / sizeof(ELEMENT)] __attribute__((aligned(64)));
    float totals[MOST_STRIPS * SLICE_PANELS * STRIP_SUMS] __attribute__((aligned(64)));
    const int64_t inputs = layer->inputs, slice = inputs > MOST_INPUTS ? SLICE : inputs;
    const int64_t fitting = BUFFER_BYTES / (slice * PANEL * (int64_t)sizeof(ELEMENT));
    const int64_t count = fitting < SLICE_PANELS ? fitting : SLICE_PANELS;
    const int with_scales = layer->codes->group < inputs;
    const Table table = table_of(layer->codes);
    for (int64_t g = from; g < beyond; g += count) {
        const int64_t panels = least(count, beyond - g);
        for (int64_t k = 0; k < inputs; k += slice) {
            const int64_t some = least(slice, inputs - k);
            for (int64_t p = 0; p < panels; p++) {
                const Panel panel = panel_of(layer, table, (int)layer->codes->coding, g + p);
                unpack_any(layer->codes->coding, with_scales, &panel, k, k + some,
                           buffer + p * slice * PANEL);
            }
            for (int64_t r = 0; r < rows; r += STRIP) {
                const int64_t row = first + r, these = least(STRIP, rows - r);
                const Strip strip = begin_strip(x, tiled, row, these, inputs);
                for (int64_t p = 0; p < panels; p++) {
                    float *sums = totals + (r / STRIP * panels + p) * STRIP_SUMS;
                    add_to_strip(&strip, k, buffer + p * slice * PANEL, some, k == 0, sums);
                    if (k + some < inputs) continue;
                    const Panel panel = panel_of(layer, table, (int)layer->codes->coding, g + p);
                    put_strip(&panel, with_scales, sums, sums_x, row, these, y);
                }
            }
        }
    }
}

/* Any rows. */
static void panels_more(const Linear *layer, const ELEMENT *x, int tiled, int64_t rows,
                        int64_t from, int64_t beyond, const Output *y) {
    float sums_x[rows];
    for (int64_t r = 0; r < rows; r++) {
        sums_x[r] = 0;
        if (layer->codes->offsets && layer->codes->group == layer->inputs)
            sum_groups(x, tiled, r, layer->inputs, layer->inputs, sums_x + r);
    }
    for (int64_t r = 0; r < rows; r += SLICE_ROWS)
        panels_many(layer, x, tiled, r, least(SLICE_ROWS, rows - r), from, beyond, y, sums_x);
    end_strips();
}

/* --- a layer --------------------------------------------------------------------------------- */

/* As the exported function below; x and a gated y may be in tiles. */
void NAME(quantized_region)(const Linear *layer, const ELEMENT *x, int x_tiled, void *y,
                            int y_tiled, int64_t rows, Share share) {
    const Output to = output_of(layer, y, y_tiled);
    if (!rows) return; /* few rows are one or two */
    for (Work work = parts_of((layer->outputs + PANEL - 1) / PANEL, share); next_part(&work);)
        if (!x_tiled && rows <= FEW_ROWS)
            panels_few_any(rows, x, layer, &to, work.first, work.beyond);
        else if (rows <= SOME_ROWS)
            panels_some(layer, x, x_tiled, rows, work.first, work.beyond, &to);
        else
            panels_more(layer, x, x_tiled, rows, work.first, work.beyond, &to);
}

EXPORT void NAME(linear_quantized)(const Linear *layer, const ELEMENT *x, void *y, int64_t rows) {
    Team *team = new_team();
#pragma omp parallel
    NAME(quantized_region)(layer, x, 0, y, 0, rows, team_share(team));
}
