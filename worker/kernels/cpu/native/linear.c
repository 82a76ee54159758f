/* Linear layers in bfloat16: y[M, N] = x[M, K] w[N, K]^T + bias[N], sums in float32;
 * y in bfloat16 or, for the output layer, in float32.
 *
 * Weights are packed once, in panels of 32 outputs: [N / 32][K / 2][32][2]. A panel is read from
 * front to back: by dot products of pairs for few rows, which is as fast as memory, and as tiles by
 * AMX for more. N is padded with zeros to a multiple of 32; K must be one.
 */
#include "regions.h"
#include "tiles.h"
#include "vectors.h"

#include <omp.h>
#include <stddef.h>

#define PANEL 32
#define ROWS 8          /* of x at a time, in registers */
#define SUPER_ROWS 256  /* of x that stay in the L2 cache while panels pass */

EXPORT int64_t linear_packed_elements(int64_t outputs, int64_t inputs) {
    return (outputs + PANEL - 1) / PANEL * PANEL * inputs;
}

EXPORT void linear_pack(const bf16 *weight, bf16 *packed, int64_t outputs, int64_t inputs) {
    int64_t panels = (outputs + PANEL - 1) / PANEL;
#pragma omp parallel for
    for (int64_t p = 0; p < panels; p++) {
        bf16 *to = packed + p * PANEL * inputs;
        for (int64_t k = 0; k < inputs; k += 2)
            for (int64_t n = p * PANEL; n < (p + 1) * PANEL; n++, to += 2) {
                to[0] = n < outputs ? weight[n * inputs + k] : 0;
                to[1] = n < outputs ? weight[n * inputs + k + 1] : 0;
            }
    }
}

/* Where results go: [M, N] in bfloat16, or as they are in float32. */
typedef struct {
    void *rows;
    int wide;
} Output;

INLINE Output below(Output y, int64_t elements) {
    y.rows = (char *)y.rows + elements * (y.wide ? sizeof(float) : sizeof(bf16));
    return y;
}

/* The result of 16 outputs of a row: plus the bias; at the end of N, fewer. */
INLINE void put(Output y, int64_t at, f32x16 sum, const bf16 *bias, int64_t count) {
    bf16 *narrow = (bf16 *)y.rows + at;
    float *wide = (float *)y.rows + at;
    if (count < LANES) {
        for (int64_t i = 0; i < count; i++) {
            float value = bias ? sum[i] + bf16_to_float(bias[i]) : sum[i];
            if (y.wide) wide[i] = value;
            else narrow[i] = float_to_bf16(value);
        }
        return;
    }
    if (bias) sum += load_bf16(bias);
    if (y.wide) store_f32(wide, sum);
    else store_bf16(narrow, sum);
}

/* rows <= ROWS rows of x, one panel. For few rows the sum is split, so that no addition waits. */
INLINE void panel_rows(const int rows, const bf16 *x, const bf16 *panel, const bf16 *bias, Output y,
                       int64_t outputs, int64_t inputs, int64_t first) {
    const int chains = rows == 1 ? 4 : rows <= 3 ? 2 : 1;
    f32x16 sums[ROWS][2][4];
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < chains; c++) sums[r][0][c] = sums[r][1][c] = splat(0);
    for (int64_t k = 0; k < inputs; k += 2 * chains) {
#pragma GCC unroll 4
        for (int c = 0; c < chains; c++) {
            const bf16 *w = panel + (k + 2 * c) * PANEL;
            __builtin_prefetch(w + 64 * PANEL);
            __builtin_prefetch(w + 65 * PANEL);
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++) {
                const bf16 *pair = x + r * inputs + k + 2 * c;
                sums[r][0][c] = dot_pairs(sums[r][0][c], w, pair);
                sums[r][1][c] = dot_pairs(sums[r][1][c], w + 2 * LANES, pair);
            }
        }
    }
    for (int r = 0; r < rows; r++)
        for (int half = 0; half < 2; half++) {
            f32x16 sum = sums[r][half][0];
            for (int c = 1; c < chains; c++) sum += sums[r][half][c];
            int64_t n = first + half * LANES;
            put(y, r * outputs + n, sum, bias ? bias + n : NULL, outputs - n);
        }
}

static void panel_few(int64_t rows, const bf16 *x, const bf16 *panel, const bf16 *bias, Output y,
                      int64_t outputs, int64_t inputs, int64_t first) {
    for (; rows > 0; rows -= ROWS, x += ROWS * inputs, y = below(y, ROWS * outputs)) switch (rows) {
            case 1: panel_rows(1, x, panel, bias, y, outputs, inputs, first); break;
            case 2: panel_rows(2, x, panel, bias, y, outputs, inputs, first); break;
            case 3: panel_rows(3, x, panel, bias, y, outputs, inputs, first); break;
            case 4: panel_rows(4, x, panel, bias, y, outputs, inputs, first); break;
            case 5: panel_rows(5, x, panel, bias, y, outputs, inputs, first); break;
            case 6: panel_rows(6, x, panel, bias, y, outputs, inputs, first); break;
            case 7: panel_rows(7, x, panel, bias, y, outputs, inputs, first); break;
            default: panel_rows(8, x, panel, bias, y, outputs, inputs, first);
        }
}

#if defined(__AMX_BF16__)

#include <sys/syscall.h>
#include <unistd.h>

#define DEPTH 32              /* elements of a row that a tile holds */
#define AMX_ROWS 3            /* PERF: from here on tiles are faster than dot products */
#define GROUP_BYTES (1 << 19) /* of panels that stay in the L2 cache while rows pass */
#define AHEAD 64              /* pairs of inputs */

/* Asks the system for the tiles' registers: 0, or AMX is not to be had. */
EXPORT int linear_prepare(void) { return (int)syscall(SYS_arch_prctl, 0x1023, 18); }

/* Up to 32 rows of x: where they are, and how far it is to the next 32 inputs and the next row. */
typedef struct {
    const bf16 *high, *low;
    int high_rows, low_rows;
    int64_t step, stride_bytes;
} Rows;

/* Sums in 0-3, x in 4 and 5, the panel in 6 and 7. */
static void configure(const Rows *x) {
    TileConfig config = {.palette = 1};
    for (int t = 0; t < 8; t++) {
        int low = t == 5 || t == 2 || t == 3;
        config.bytes[t] = 64;
        config.rows[t] = (uint8_t)(t >= 6 ? TILE : !low ? x->high_rows : x->low_rows ? x->low_rows : 1);
    }
    _tile_loadconfig(&config);
}

static void put_tile(const float *sums, int rows, const bf16 *bias, Output y, int64_t outputs,
                     int64_t n) {
    if (n >= outputs) return;
    for (int r = 0; r < rows; r++)
        put(y, r * outputs + n, load_f32(sums + r * TILE), bias ? bias + n : NULL, outputs - n);
}

/* One panel; `ahead` where it comes from memory. */
INLINE void panel_tiles(const int two, const int ahead, const Rows *x, const bf16 *panel,
                        const bf16 *bias, Output y, int64_t outputs, int64_t inputs, int64_t first) {
    float sums[4][TILE * TILE] __attribute__((aligned(64)));
    const bf16 *high = x->high, *low = x->low;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t k = 0; k < inputs; k += DEPTH, high += x->step, low += x->step) {
        const bf16 *w = panel + k * PANEL;
        if (ahead)
            for (int i = 0; i < DEPTH; i++) __builtin_prefetch(w + (AHEAD + i) * PANEL);
        _tile_loadd(4, high, x->stride_bytes);
        _tile_loadd(6, w, 2 * PANEL * sizeof(bf16));
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, w + PANEL, 2 * PANEL * sizeof(bf16));
        _tile_dpbf16ps(1, 4, 7);
        if (two) {
            _tile_loadd(5, low, x->stride_bytes);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
    }
    _tile_stored(0, sums[0], TILE * sizeof(float));
    _tile_stored(1, sums[1], TILE * sizeof(float));
    if (two) {
        _tile_stored(2, sums[2], TILE * sizeof(float));
        _tile_stored(3, sums[3], TILE * sizeof(float));
    }
    put_tile(sums[0], x->high_rows, bias, y, outputs, first);
    put_tile(sums[1], x->high_rows, bias, y, outputs, first + TILE);
    if (!two) return;
    y = below(y, x->high_rows * outputs);
    put_tile(sums[2], x->low_rows, bias, y, outputs, first);
    put_tile(sums[3], x->low_rows, bias, y, outputs, first + TILE);
}

/* Panels `from` to `to`, for rows that are there already: 32 of them after another. */
static void panels_many(int64_t rows, const bf16 *x, int is_packed, const bf16 *packed,
                        const bf16 *bias, Output y, int64_t outputs, int64_t inputs, int64_t from,
                        int64_t to) {
    int64_t group = GROUP_BYTES / (PANEL * inputs * (int64_t)sizeof(bf16));
    if (group < 1) group = 1;
    int configured = 0;
    for (int64_t g = from; g < to; g += group)
        for (int64_t r = 0; r < rows; r += 2 * TILE) {
            int64_t left = rows - r;
            Rows some = {.high = x + r * inputs,
                         .low = x + (r + TILE) * inputs,
                         .high_rows = left < TILE ? (int)left : TILE,
                         .low_rows = left <= TILE ? 0 : left < 2 * TILE ? (int)left - TILE : TILE,
                         .step = is_packed ? TILE * DEPTH : DEPTH,
                         .stride_bytes = (is_packed ? DEPTH : inputs) * (int64_t)sizeof(bf16)};
            int shape = some.high_rows * 64 + some.low_rows;
            if (shape != configured) configure(&some);
            configured = shape;
            for (int64_t p = g; p < to && p < g + group; p++) {
                const bf16 *panel = packed + p * PANEL * inputs;
                Output out = below(y, r * outputs);
                int64_t n = p * PANEL;
                if (!some.low_rows)
                    panel_tiles(0, 1, &some, panel, bias, out, outputs, inputs, n);
                else if (r == 0)
                    panel_tiles(1, 1, &some, panel, bias, out, outputs, inputs, n);
                else
                    panel_tiles(1, 0, &some, panel, bias, out, outputs, inputs, n);
            }
        }
}

/* 16 rows to tiles that lie one after another: [K / 32][16][32]. */
static void pack_rows(int64_t rows, const bf16 *x, bf16 *to, int64_t inputs) {
    for (int64_t k = 0; k < inputs; k += DEPTH, to += TILE * DEPTH)
        for (int64_t r = 0; r < rows; r++)
            memcpy(to + r * DEPTH, x + r * inputs + k, DEPTH * sizeof(bf16));
}

#else

EXPORT int linear_prepare(void) { return 0; }

#endif

/* Elements of scratch that so many rows need. */
EXPORT int64_t linear_scratch_elements(int64_t rows, int64_t inputs) {
    return rows <= 32 ? 0 : (rows < SUPER_ROWS ? (rows + 15) / 16 * 16 : SUPER_ROWS) * inputs;
}

/* As linear_bf16, by all threads of a parallel region, for at most SUPER_ROWS rows. */
static void linear_rows(const Linear *layer, const bf16 *x, Output y, bf16 *scratch, int64_t rows) {
    const int64_t outputs = layer->outputs, inputs = layer->inputs;
    const int64_t panels = (outputs + PANEL - 1) / PANEL;
    int64_t threads = omp_get_num_threads(), own = omp_get_thread_num();
    int64_t from = panels * own / threads, to = panels * (own + 1) / threads;
    (void)scratch; /* not without tiles */
#if defined(__AMX_BF16__)
    if (rows >= AMX_ROWS) {
        int is_packed = rows > 2 * TILE;
        if (is_packed) {
#pragma omp for
            for (int64_t r = 0; r < rows; r += TILE)
                pack_rows(rows - r < TILE ? rows - r : TILE, x + r * inputs, scratch + r * inputs,
                          inputs);
        }
        panels_many(rows, is_packed ? scratch : x, is_packed, layer->weights, layer->bias, y,
                    outputs, inputs, from, to);
        _tile_release();
        from = to;
    }
#endif
    for (int64_t p = from; p < to; p++)
        panel_few(rows, x, layer->weights + p * PANEL * inputs, layer->bias, y, outputs, inputs,
                  p * PANEL);
#pragma omp barrier
}

void linear_region(const Linear *layer, const bf16 *x, void *y, int wide, bf16 *scratch,
                   int64_t rows) {
    Output to = {y, wide};
    for (int64_t r = 0; r < rows; r += SUPER_ROWS)
        linear_rows(layer, x + r * layer->inputs, below(to, r * layer->outputs), scratch,
                    rows - r < SUPER_ROWS ? rows - r : SUPER_ROWS);
}

EXPORT void linear_bf16(const bf16 *x, const bf16 *packed, const bf16 *bias, void *y,
                        bf16 *scratch, int64_t rows, int64_t outputs, int64_t inputs,
                        int64_t wide) {
    Linear layer = {packed, bias, outputs, inputs};
#pragma omp parallel
    linear_region(&layer, x, y, wide != 0, scratch, rows);
}
