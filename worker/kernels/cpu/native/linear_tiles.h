/* Linear layers by AMX, for more than a few rows: panels as tiles, x as it is or in tiles. Belongs
 * to linear.c, whose results it puts where they belong.
 */
#include "tiles.h"

#include <sys/syscall.h>
#include <unistd.h>

#define DEPTH 32              /* elements of a row that a tile holds */
#define AMX_ROWS 3            /* PERF: from here on tiles are faster than dot products */
#define GROUP_BYTES (1 << 19) /* of panels that stay in the L2 cache while rows pass */
#define AHEAD 64              /* pairs of inputs */
#define MOST_INPUTS 2048      /* more are cut into slices, where so many rows pass: */
#define MANY_ROWS 128
#define SLICE 512             /* inputs of SLICE_ROWS rows and SLICE_PANELS panels at a time */
#define SLICE_ROWS 512
#define SLICE_PANELS 8

/* Asks the system for the tiles' registers: 0, or AMX is not to be had. */
EXPORT int linear_prepare(void) { return (int)syscall(SYS_arch_prctl, 0x1023, 18); }

/* Up to 32 rows of x: where they are, and how far it is to the next 32 inputs and the next row. */
typedef struct {
    const bf16 *high, *low;
    int high_rows, low_rows;
    int64_t step, stride_bytes;
} Rows;

INLINE Rows rows_of(const bf16 *x, int tiled, int64_t row, int64_t rows, int64_t inputs) {
    int64_t left = rows - row;
    return (Rows){.high = x + row * inputs,
                  .low = x + (row + TILE) * inputs,
                  .high_rows = left < TILE ? (int)left : TILE,
                  .low_rows = left <= TILE ? 0 : left < 2 * TILE ? (int)left - TILE : TILE,
                  .step = tiled ? TILE * DEPTH : DEPTH,
                  .stride_bytes = (tiled ? DEPTH : inputs) * (int64_t)sizeof(bf16)};
}

/* Sums in 0-3, x in 4 and 5, the panel in 6 and 7. */
static void configure(const Rows *x) {
    TileConfig config = {.palette = 1};
    for (int t = 0; t < 8; t++) {
        int low = t == 5 || t == 2 || t == 3;
        config.bytes[t] = 64;
        config.rows[t] = (uint8_t)(t >= 6 ? TILE : !low ? x->high_rows : x->low_rows ? x->low_rows : 1);
    }
    tiles_configure(&config);
}

/* Sums of up to 32 rows and one panel, its left and its right half, that have yet to be put where
 * they belong: that is done while the next are computed, by other parts of the processor. */
typedef struct {
    const float *sums; /* [2][32][16] */
    int64_t row, first;
    int next, rows;
} Pending;

INLINE void put_next(Pending *from, const Output *y) {
    const float *left = from->sums + from->next * TILE, *right = left + 2 * TILE * TILE;
    put(y, from->row + from->next, from->first, load_f32(left), load_f32(right));
    from->next++;
}

static void put_rest(Pending *from, const Output *y) {
    while (from->next < from->rows) put_next(from, y);
}

/* Adds to the sums of one panel, or begins them, what `inputs` inputs contribute; `ahead` where the
 * panel comes from memory. PERF: what comes from the L2 cache is read past L1, where x stays: a
 * fifth faster. */
INLINE void panel_tiles(const int two, const int ahead, const Rows *x, const bf16 *panel,
                        int64_t inputs, int begins, float *sums, Pending *before, const Output *y) {
    const int64_t stride = TILE * sizeof(float);
    const bf16 *high = x->high, *low = x->low;
    float *right = sums + 2 * TILE * TILE;
    if (begins) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    } else {
        _tile_loadd(0, sums, stride);
        _tile_loadd(1, right, stride);
        if (two) {
            _tile_loadd(2, sums + TILE * TILE, stride);
            _tile_loadd(3, right + TILE * TILE, stride);
        }
    }
    for (int64_t k = 0; k < inputs; k += DEPTH, high += x->step, low += x->step) {
        const bf16 *w = panel + k * PANEL;
        _tile_loadd(4, high, x->stride_bytes);
        if (ahead) {
            for (int i = 0; i < DEPTH; i++) __builtin_prefetch(w + (AHEAD + i) * PANEL);
            _tile_loadd(6, w, 2 * PANEL * sizeof(bf16));
            _tile_loadd(7, w + PANEL, 2 * PANEL * sizeof(bf16));
        } else {
            _tile_stream_loadd(6, w, 2 * PANEL * sizeof(bf16));
            _tile_stream_loadd(7, w + PANEL, 2 * PANEL * sizeof(bf16));
        }
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        if (two) {
            _tile_loadd(5, low, x->stride_bytes);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
        if (before->next < before->rows) put_next(before, y);
        if (before->next < before->rows) put_next(before, y);
    }
    put_rest(before, y);
    _tile_stored(0, sums, stride);
    _tile_stored(1, right, stride);
    if (two) { /* the rows of high are all there */
        _tile_stored(2, sums + TILE * TILE, stride);
        _tile_stored(3, right + TILE * TILE, stride);
    }
}

/* Some inputs of some panels, for some rows. */
typedef struct {
    int64_t row, beyond_row, panel, beyond_panel, input, beyond_input;
} Piece;

/* `sums`: [2][32][16] for each 32 rows and panel of a piece, if it has not all inputs; one
 * otherwise. */
static void panels_piece(const Piece *piece, int64_t rows, const bf16 *x, int tiled,
                         const bf16 *packed, const Output *y, int64_t inputs, float *sums,
                         Pending *pending, int *configured) {
    const int whole = piece->beyond_input == inputs, begins = piece->input == 0;
    const int64_t some = piece->beyond_input - piece->input;
    const int64_t panels = piece->beyond_panel - piece->panel;
    for (int64_t r = piece->row; r < piece->beyond_row; r += 2 * TILE) {
        Rows at = rows_of(x, tiled, r, rows, inputs);
        int shape = at.high_rows * 64 + at.low_rows, count = at.high_rows + at.low_rows;
        if (shape != *configured) configure(&at);
        *configured = shape;
        at.high += piece->input / DEPTH * at.step;
        at.low += piece->input / DEPTH * at.step;
        for (int64_t p = piece->panel; p < piece->beyond_panel; p++) {
            const bf16 *panel = packed + p * PANEL * inputs + piece->input * PANEL;
            int64_t number = (r - piece->row) / (2 * TILE) * panels + p - piece->panel;
            float *to = sums + (whole && begins ? 0 : number) * PANEL * 2 * TILE;
            if (!at.low_rows)
                panel_tiles(0, 1, &at, panel, some, begins, to, pending, y);
            else if (r == 0)
                panel_tiles(1, 1, &at, panel, some, begins, to, pending, y);
            else
                panel_tiles(1, 0, &at, panel, some, begins, to, pending, y);
            if (whole) *pending = (Pending){to, r, p * PANEL, 0, count};
        }
    }
}

/* Panels `from` to `to`, for rows that are there already. PERF: many rows of many inputs in slices,
 * so that a slice of x stays in L1 while a group of panels passes, and all of a group in L2. */
static void panels_many(int64_t rows, const bf16 *x, int tiled, const bf16 *packed, const Output *y,
                        int64_t inputs, int64_t from, int64_t to) {
    static const int64_t tile_sums = PANEL * 2 * TILE;
    const int sliced = rows >= MANY_ROWS && inputs > MOST_INPUTS;
    const int64_t slice = sliced ? SLICE : inputs, some_rows = sliced ? SLICE_ROWS : rows;
    int64_t group = sliced ? SLICE_PANELS : GROUP_BYTES / (PANEL * inputs * (int64_t)sizeof(bf16));
    float sums[SLICE_ROWS / (2 * TILE) * SLICE_PANELS * tile_sums] __attribute__((aligned(64)));
    Pending pending = {.next = 0, .rows = 0};
    int configured = 0;
    if (group < 1) group = 1;
    for (int64_t g = from; g < to; g += group)
        for (int64_t r = 0; r < rows; r += some_rows)
            for (int64_t k = 0; k < inputs; k += slice) {
                Piece piece = {r, least(r + some_rows, rows), g, least(g + group, to),
                               k, least(k + slice, inputs)};
                panels_piece(&piece, rows, x, tiled, packed, y, inputs, sums, &pending,
                             &configured);
            }
    put_rest(&pending, y);
}

/* 16 rows to tiles. */
static void pack_rows(int64_t rows, const bf16 *x, bf16 *to, int64_t inputs) {
    for (int64_t k = 0; k < inputs; k += DEPTH, to += TILE * DEPTH)
        for (int64_t r = 0; r < rows; r++)
            memcpy(to + r * DEPTH, x + r * inputs + k, DEPTH * sizeof(bf16));
}
