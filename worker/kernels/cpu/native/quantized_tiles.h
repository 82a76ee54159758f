/* Codes by AMX, in bfloat16: belongs to quantized.h. Panels are tiles once they are unpacked, x is one
 * as it is or lies in tiles already (see regions.h).
 */
#include "panel_tiles.h"

#define STRIP (2 * TILE)
#define STRIP_SUMS (2 * STRIP * LANES)
#define SOME_ROWS STRIP
#define PIECE 64     /* inputs that are unpacked at a time. PERF: 256: a fifth to a third slower */

/* Up to 32 rows of x: where they are, and how far it is to the next 32 inputs and the next row. */
typedef struct {
    const bf16 *high, *low;
    int64_t rows, step, stride_bytes;
} Strip;

static Strip begin_strip(const bf16 *x, int tiled, int64_t row, int64_t rows, int64_t inputs) {
    const uint8_t high = (uint8_t)least(rows, TILE), low = (uint8_t)(rows > TILE ? rows - TILE : 1);
    TileConfig config = {.palette = 1};
    for (int t = 0; t < 8; t++) {
        config.bytes[t] = 64;
        config.rows[t] = t >= 6 ? TILE : t == 5 || t == 2 || t == 3 ? low : high;
    }
    tiles_configure(&config);
    return (Strip){.high = x + row * inputs,
                   .low = x + (row + TILE) * inputs,
                   .rows = rows,
                   .step = tiled ? TILE * DEPTH : DEPTH,
                   .stride_bytes = (tiled ? DEPTH : inputs) * (int64_t)sizeof(bf16)};
}

static void end_strips(void) { _tile_release(); }

/* Adds what some inputs contribute, from input `from` on; `again`: other strips will need the panel,
 * which stays in the L2 cache. */
INLINE void multiply_strip(const int two, const int again, const Strip *x, int64_t from,
                           const bf16 *panel, int64_t inputs) {
    const bf16 *high = x->high + from / DEPTH * x->step, *low = x->low + from / DEPTH * x->step;
    tiles_will_read(panel);
    for (int64_t k = 0; k < inputs; k += DEPTH, high += x->step, low += x->step) {
        multiply_tiles(two, again, high, low, x->stride_bytes, panel + k * PANEL);
    }
}

/* `sums`: [2][32][16], for the panel's left and right. */
static void store_sums(const Strip *x, float *sums) {
    const int64_t stride = LANES * sizeof(float);
    _tile_stored(0, sums, stride);
    _tile_stored(1, sums + STRIP * LANES, stride);
    if (x->rows <= TILE) return;
    _tile_stored(2, sums + TILE * LANES, stride);
    _tile_stored(3, sums + (STRIP + TILE) * LANES, stride);
}

static void load_sums(const Strip *x, const float *sums) {
    const int64_t stride = LANES * sizeof(float);
    _tile_loadd(0, sums, stride);
    _tile_loadd(1, sums + STRIP * LANES, stride);
    if (x->rows <= TILE) return;
    _tile_loadd(2, sums + TILE * LANES, stride);
    _tile_loadd(3, sums + (STRIP + TILE) * LANES, stride);
}

/* Adds to a strip's sums, or begins them, what some inputs of a panel contribute. */
static void add_to_strip(const Strip *x, int64_t from, const bf16 *panel, int64_t inputs, int begins,
                      float *sums) {
    if (begins) clear_sums();
    else load_sums(x, sums);
    if (x->rows > TILE) multiply_strip(1, 1, x, from, panel, inputs);
    else multiply_strip(0, 1, x, from, panel, inputs);
    store_sums(x, sums);
}

/* A group's sums of a strip, without its scales. */
static void group_sums(const Strip *x, const Panel *panel, int64_t coding, int64_t group,
                       float *sums) {
    bf16 piece[PIECE * PANEL] __attribute__((aligned(64)));
    const int64_t beyond = (group + 1) * panel->group;
    clear_sums();
    for (int64_t k = group * panel->group; k < beyond; k += PIECE) {
        const int64_t some = least(PIECE, beyond - k);
        unpack_any(coding, 0, panel, k, k + some, piece);
        if (x->rows > TILE) multiply_strip(1, 0, x, k, piece, some);
        else multiply_strip(0, 0, x, k, piece, some);
    }
    store_sums(x, sums);
}

/* Up to 32 rows: codes are unpacked as they come, and sums scaled by group. PERF: so they need not be
 * scaled one by one. */
static void panels_some(const Linear *layer, const bf16 *x, int tiled, int64_t rows, int64_t from,
                        int64_t beyond, const Output *y) {
    const int64_t group = layer->codes->group, groups = layer->inputs / group;
    const Table table = table_of(layer->codes);
    float sums[2 * STRIP * LANES] __attribute__((aligned(64)));
    float sums_x[rows * groups];
    f32x16 totals[STRIP][2];
    const Strip strip = begin_strip(x, tiled, 0, rows, layer->inputs);
    for (int64_t r = 0; r < rows; r++)
        if (layer->codes->offsets)
            sum_groups(x, tiled, r, layer->inputs, group, sums_x + r * groups);
    for (int64_t p = from; p < beyond; p++) {
        const Panel panel = panel_of(layer, table, (int)layer->codes->coding, p);
        for (int64_t g = 0; g < groups; g++) {
            group_sums(&strip, &panel, layer->codes->coding, g, sums);
            for (int64_t r = 0; r < rows; r++)
                for (int side = 0; side < 2; side++) {
                    const float sum_x = panel.offsets ? sums_x[r * groups + g] : 0;
                    const f32x16 sum = load_f32(sums + (side * STRIP + r) * LANES);
                    const f32x16 settled = settle(&panel, g, side, sum, sum_x);
                    totals[r][side] = g ? totals[r][side] + settled : settled;
                }
        }
        for (int64_t r = 0; r < rows; r++) put(y, r, panel.first, totals[r][0], totals[r][1]);
    }
    end_strips();
}
