/* Unpacked codes without tiles: belongs to quantized.h. */
#include "panel_rows.h"

#define FORM (STEP == 2 ? PAIRS : SINGLES) /* of what is unpacked */
#define SOME_ROWS 0                        /* more than few are many: */
#define panels_some panels_more

typedef struct {
    const ELEMENT *x;
    int64_t rows, stride;
} Strip;

static Strip begin_strip(const ELEMENT *x, int tiled, int64_t row, int64_t rows, int64_t inputs) {
    (void)tiled; /* they never are */
    return (Strip){x + row * inputs, rows, inputs};
}

static void end_strips(void) {}

/* Adds to a strip's sums, or begins them, what some inputs of a panel contribute. */
static void add_to_strip(const Strip *x, int64_t from, const ELEMENT *panel, int64_t inputs,
                         int begins, float *sums) {
    const Wanted nothing = {(const char *)panel, 0};
    add_strip(FORM, x->rows, x->x + from, x->stride, panel, inputs, nothing, begins, sums);
}
