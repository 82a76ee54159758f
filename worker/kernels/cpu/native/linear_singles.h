/* Linear layers in float32, by the vector units. Weights are kept in float16 where that holds them:
 * then half as much is read. Belongs to linear.h.
 */
#include "panel_rows.h"

#define SLICE 320       /* PERF: inputs of a panel that stay in L1 while strips of x pass: 640, */
                        /* more than fit, take a tenth longer */
#define BLOCK_STRIPS 16 /* of x, of which a slice stays in L2 while panels pass: */
#define GROUP 8         /* so many where all inputs of them are more than */
#define X_BYTES (1 << 18)
#define AHEAD_BYTES 4096 /* of weights, where rows pass once */

/* Rows of x that are computed together, in strips that are about as long as each other: how many
 * times those pass over a panel. */
typedef struct {
    const float *x;
    int64_t rows, inputs, strips, passes;
} RowBlock;

INLINE int64_t rows_before(const RowBlock *block, int64_t strip) {
    return block->rows * strip / block->strips;
}

static RowBlock block_of(const float *x, int64_t rows, int64_t inputs) {
    RowBlock block = {x, rows, inputs, (rows + STRIP - 1) / STRIP, 0};
    for (int64_t s = 0; s < block.strips; s++)
        block.passes += passes_of(rows_before(&block, s + 1) - rows_before(&block, s));
    return block;
}

INLINE int64_t line_bytes(const int form) { return PANEL * (form == SINGLES ? 4 : 2); }

/* Adds to the sums of a block and one panel, [strips][2][STRIP][16], or begins them, what some
 * inputs contribute. PERF: what comes after them, as much, is asked for bit by bit in all passes:
 * memory is as busy as the units that multiply. */
INLINE void add_inputs(const int form, const RowBlock *block, const char *panel, int64_t from,
                       int64_t inputs, const char *next, float *totals) {
    Wanted wanted = {next, line_bytes(form) / block->passes};
    for (int64_t s = 0; s < block->strips; s++, totals += STRIP_SUMS) {
        const int64_t row = rows_before(block, s), rows = rows_before(block, s + 1) - row;
        add_strip(form, rows, block->x + row * block->inputs + from, block->inputs, panel, inputs,
                  wanted, from == 0, totals);
        wanted.at += passes_of(rows) * inputs * wanted.step_bytes;
    }
}

static void put_block(const RowBlock *block, const float *totals, int64_t row, int64_t first,
                      const Output *y) {
    for (int64_t s = 0; s < block->strips; s++, totals += STRIP_SUMS) {
        const int64_t before = rows_before(block, s), rows = rows_before(block, s + 1) - before;
        for (int64_t r = 0; r < rows; r++)
            put(y, row + before + r, first, load_f32(totals + r * LANES),
                load_f32(totals + (STRIP + r) * LANES));
    }
}

/* Some panels and all inputs, a slice after the other: of each panel the first, then the next. */
INLINE void add_panels(const int form, const RowBlock *block, const char *panels, int64_t count,
                       float totals[][BLOCK_STRIPS * STRIP_SUMS]) {
    const int64_t inputs = block->inputs, line = line_bytes(form);
    const int64_t slices = block->rows <= WIDE_ROWS ? 1 : (inputs + SLICE - 1) / SLICE;
    const int64_t slice = (inputs / 2 + slices - 1) / slices * 2;
    for (int64_t k = 0; k < inputs; k += slice) {
        const int64_t some = least(slice, inputs - k);
        const char *first = panels + k * line, *next_slice = first + some * line;
        if (k + some == inputs) next_slice = panels + count * inputs * line;
        for (int64_t p = 0; p < count; p++) {
            const char *panel = first + p * inputs * line;
            const char *next = p + 1 < count ? panel + inputs * line : next_slice;
            if (block->passes == 1) next = panel + least(AHEAD_BYTES, some * line);
            add_inputs(form, block, panel, k, some, next, totals[p]);
        }
    }
}

INLINE void panels_of_form(const int form, const Linear *layer, const float *x, int64_t rows,
                           int64_t from, int64_t beyond, const Output *y) {
    float totals[GROUP][BLOCK_STRIPS * STRIP_SUMS] __attribute__((aligned(64)));
    const int64_t inputs = layer->inputs;
    for (int64_t r = 0; r < rows; r += BLOCK_STRIPS * STRIP) {
        const RowBlock block =
            block_of(x + r * inputs, least(rows - r, BLOCK_STRIPS * STRIP), inputs);
        const int64_t x_bytes = block.rows * inputs * (int64_t)sizeof(float);
        const int64_t group = x_bytes > X_BYTES ? GROUP : 1;
        for (int64_t g = from; g < beyond; g += group) {
            const char *panels = (const char *)layer->weights + g * inputs * line_bytes(form);
            const int64_t count = least(group, beyond - g);
            add_panels(form, &block, panels, count, totals);
            for (int64_t p = 0; p < count; p++) put_block(&block, totals[p], r, (g + p) * PANEL, y);
        }
    }
}

/* Panels `from` to `beyond`. */
static void panels_by_rows(const Linear *layer, const float *x, int64_t rows, int64_t from,
                           int64_t beyond, const Output *y) {
    if (layer->form == SINGLES) panels_of_form(SINGLES, layer, x, rows, from, beyond, y);
    else panels_of_form(HALVES, layer, x, rows, from, beyond, y);
}
