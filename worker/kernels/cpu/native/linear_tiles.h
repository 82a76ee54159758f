/* Linear layers by AMX, for more than a few rows: panels as tiles, x as it is or in tiles. Belongs
 * to linear.h, whose results it puts where they belong.
 */
#include "panel_tiles.h"

#include <sys/syscall.h>
#include <unistd.h>

#define AMX_ROWS 3            /* PERF: from here on tiles are faster than dot products */
#define FEW_ROWS (2 * TILE)   /* up to here weights are read once, and all of them from memory */
#define AHEAD 64              /* lines of weights that are asked for then, before they are read */
#define GROUP_BYTES (1 << 19) /* of panels that stay in the L2 cache while more rows pass */
#define MOST_INPUTS 2048      /* more are cut into slices, where so many rows pass: */
#define MANY_ROWS 128
#define SLICE 512             /* inputs of SLICE_ROWS rows and SLICE_PANELS panels at a time */
#define SLICE_ROWS 512
#define SLICE_PANELS 8

#define SUMS (2 * TILE * PANEL) /* of 32 rows and a panel: [2][32][16] */

/* Asks the system for the tiles' registers: 0, or AMX is not to be had. */
EXPORT int linear_prepare(void) { return (int)syscall(SYS_arch_prctl, 0x1023, 18); }

/* Up to 32 rows of x: where they are, and how far it is to the next 32 inputs and the next row. */
typedef struct {
    const bf16 *high, *low;
    int64_t step, stride_bytes;
} Rows;

INLINE Rows rows_of(const bf16 *x, int tiled, int64_t row, int64_t input, int64_t inputs) {
    const int64_t step = tiled ? TILE * DEPTH : DEPTH;
    const bf16 *high = x + row * inputs + input / DEPTH * step;
    const int64_t stride = tiled ? DEPTH : inputs;
    return (Rows){high, high + TILE * inputs, step, stride * (int64_t)sizeof(bf16)};
}

/* Sums in 0-3, x in 4 and 5, the panel in 6 and 7. Of more than 32 rows the last tile may have some
 * that nobody asked for: they are there, in tiles, and computed for nothing. */
static void configure(int64_t rows) {
    TileConfig config = {.palette = 1};
    const int64_t low_rows = rows > FEW_ROWS ? TILE : rows > TILE ? rows - TILE : 1;
    for (int t = 0; t < 8; t++) {
        int low = t == 5 || t == 2 || t == 3;
        config.bytes[t] = 64;
        config.rows[t] = (uint8_t)(t >= 6 ? TILE : low ? low_rows : least(rows, TILE));
    }
    tiles_configure(&config);
}

/* --- beside the products ---------------------------------------------------------------------- */

/* Sums of up to 32 rows and one panel, its left and its right half, that have yet to be put where
 * they belong: that is done while the next are computed, by other parts of the processor. */
typedef struct {
    const float *sums; /* [2][32][16] */
    int64_t row, first;
    int next, rows;
} Pending;

INLINE void put_next(Pending *from, const Output *y) {
    const float *left = from->sums + from->next * TILE;
    put(y, from->row + from->next, from->first, load_f32(left), load_f32(left + SUMS / 2));
    from->next++;
}

static void put_rest(Pending *from, const Output *y) {
    while (from->next < from->rows) put_next(from, y);
}

/* Weights that are wanted next, on their way into the L2 cache: so many bytes of each of some
 * panels. */
typedef struct {
    const char *at;
    int64_t panels, bytes, left, panel_bytes;
} Wanted;

INLINE void fetch_next(Wanted *wanted) {
    __builtin_prefetch(wanted->at, 0, 2);
    wanted->at += 64;
    wanted->left -= 64;
    if (wanted->left > 0) return;
    wanted->at += wanted->panel_bytes - wanted->bytes;
    wanted->left = wanted->bytes;
    wanted->panels--;
}

/* What is done beside the products. */
typedef struct {
    Pending pending;
    Wanted wanted;
    int64_t fetches; /* for each 32 inputs of 32 rows and a panel */
    const Output *y;
} Aside;

INLINE void do_aside(Aside *aside) {
    for (int64_t i = 0; i < aside->fetches && aside->wanted.panels > 0; i++)
        fetch_next(&aside->wanted);
    if (aside->pending.next < aside->pending.rows) put_next(&aside->pending, aside->y);
    if (aside->pending.next < aside->pending.rows) put_next(&aside->pending, aside->y);
}

/* --- products --------------------------------------------------------------------------------- */

/* Adds to the sums of one panel, or begins them, what `inputs` inputs contribute; `memory` where
 * the panel comes from there. */
INLINE void block_tiles(const int two, const int memory, const Rows *x, const bf16 *panel,
                        int64_t inputs, int begins, float *sums, Aside *aside) {
    const int64_t stride = TILE * sizeof(float);
    const bf16 *high = x->high, *low = x->low;
    float *right = sums + SUMS / 2;
    if (begins) {
        clear_sums();
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
        if (memory)
            for (int i = 0; i < DEPTH; i++) __builtin_prefetch(w + (AHEAD + i) * PANEL, 0, 2);
        multiply_tiles(two, !memory, high, low, x->stride_bytes, w);
        do_aside(aside);
    }
    put_rest(&aside->pending, aside->y);
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

/* One layer's x and weights. */
typedef struct {
    const bf16 *x, *packed;
    int tiled;
    int64_t rows, inputs;
} Operands;

/* `sums`: [2][32][16] for each 32 rows and panel of a piece that has not all inputs; one otherwise.
 */
static void multiply_piece(const Operands *of, const Piece *piece, float *sums, Aside *aside) {
    const int64_t inputs = of->inputs, some = piece->beyond_input - piece->input;
    const int whole = piece->beyond_input == inputs, begins = piece->input == 0;
    float *to = sums;
    for (int64_t r = piece->row; r < piece->beyond_row; r += 2 * TILE) {
        const Rows at = rows_of(of->x, of->tiled, r, piece->input, inputs);
        const int64_t rows = least(2 * TILE, of->rows - r);
        for (int64_t p = piece->panel; p < piece->beyond_panel; p++, to += SUMS) {
            const bf16 *panel = of->packed + (p * inputs + piece->input) * PANEL;
            if (whole && begins) to = sums;
            if (of->rows <= TILE) block_tiles(0, 1, &at, panel, some, begins, to, aside);
            else if (of->rows <= FEW_ROWS) block_tiles(1, 1, &at, panel, some, begins, to, aside);
            else if (rows <= TILE) block_tiles(0, 0, &at, panel, some, begins, to, aside);
            else block_tiles(1, 0, &at, panel, some, begins, to, aside);
            if (whole) aside->pending = (Pending){to, r, p * PANEL, 0, (int)rows};
        }
    }
}

/* How a layer is cut: at most so many rows, panels and inputs at a time, panels up to `beyond`. */
typedef struct {
    int64_t rows, panels, inputs, beyond;
} Cut;

static Cut cut_of(const Operands *of, int64_t from, int64_t to) {
    if (of->rows <= FEW_ROWS) return (Cut){of->rows, 1, of->inputs, to};
    if (of->rows >= MANY_ROWS && of->inputs > MOST_INPUTS)
        return (Cut){SLICE_ROWS, SLICE_PANELS, SLICE, to};
    const int64_t fit = GROUP_BYTES / (PANEL * of->inputs * (int64_t)sizeof(bf16));
    const int64_t most = fit < 1 ? 1 : fit, groups = (to - from + most - 1) / most;
    return (Cut){of->rows, groups ? (to - from + groups - 1) / groups : 1, of->inputs, to};
}

INLINE Piece piece_at(const Cut *cut, const Operands *of, int64_t row, int64_t panel,
                      int64_t input) {
    return (Piece){row,   least(row + cut->rows, of->rows),
                   panel, least(panel + cut->panels, cut->beyond),
                   input, least(input + cut->inputs, of->inputs)};
}

static Piece piece_after(const Cut *cut, const Operands *of, const Piece *piece) {
    if (piece->beyond_input < of->inputs)
        return piece_at(cut, of, piece->row, piece->panel, piece->beyond_input);
    if (piece->beyond_row < of->rows) return piece_at(cut, of, piece->beyond_row, piece->panel, 0);
    return piece_at(cut, of, 0, piece->beyond_panel, 0);
}

static Wanted weights_of(const bf16 *packed, const Piece *piece, int64_t inputs) {
    const int64_t row_bytes = PANEL * sizeof(bf16);
    const int64_t bytes = (piece->beyond_input - piece->input) * row_bytes;
    return (Wanted){(const char *)(packed + (piece->panel * inputs + piece->input) * PANEL),
                    piece->beyond_panel - piece->panel, bytes, bytes, inputs * row_bytes};
}

/* How many of its lines are fetched beside each step of a piece, so that all are. */
static int64_t fetches_of(const Wanted *wanted, const Piece *piece) {
    const int64_t steps = (piece->beyond_row - piece->row + FEW_ROWS - 1) / FEW_ROWS *
                          (piece->beyond_panel - piece->panel) *
                          ((piece->beyond_input - piece->input) / DEPTH);
    return (wanted->panels * wanted->bytes / 64 + steps - 1) / steps;
}

/* Panels `from` to `to`, for rows that are there already; `then` is wanted after them. PERF:
 * weights come from memory while those before them are multiplied; many rows of many inputs are cut
 * into slices, so that a slice of x stays in L1 while a group of panels passes, and all of a group
 * in L2. */
static void panels_many(const Operands *of, const Output *y, int64_t from, int64_t to,
                        Wanted then) {
    float sums[SLICE_ROWS / (2 * TILE) * SLICE_PANELS * SUMS] __attribute__((aligned(64)));
    const Cut cut = cut_of(of, from, to);
    Aside aside = {.y = y};
    configure(of->rows);
    for (Piece piece = piece_at(&cut, of, 0, from, 0); piece.panel < to;) {
        const Piece next = piece_after(&cut, of, &piece);
        if (of->rows > FEW_ROWS) {
            aside.wanted = next.panel < to ? weights_of(of->packed, &next, of->inputs) : then;
            aside.fetches = fetches_of(&aside.wanted, &piece);
        }
        multiply_piece(of, &piece, sums, &aside);
        piece = next;
    }
    put_rest(&aside.pending, y);
}

/* The weights with which this thread begins a layer. */
static Wanted first_of(const Linear *layer, int64_t rows, Share share) {
    const Operands of = {.rows = rows, .inputs = layer->inputs};
    const int64_t panels = panels_of(layer), from = share_of(panels, share.own, share);
    const Cut cut = cut_of(&of, from, share_of(panels, share.own + 1, share));
    const Piece piece = piece_at(&cut, &of, 0, from, 0);
    return weights_of(layer->weights, &piece, layer->inputs);
}

/* 16 rows to tiles. */
static void pack_rows(int64_t rows, const bf16 *x, bf16 *to, int64_t inputs) {
    for (int64_t k = 0; k < inputs; k += DEPTH, to += TILE * DEPTH)
        for (int64_t r = 0; r < rows; r++)
            memcpy(to + r * DEPTH, x + r * inputs + k, DEPTH * sizeof(bf16));
}
