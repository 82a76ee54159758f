/* Unpacked codes without tiles: belongs to quantized.h. A strip is as many rows as registers hold. */
#define STRIP 8
#define SOME_ROWS 0     /* more than few are many: */
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

INLINE Lanes *total_of(float *totals, int row, int part) {
    return (Lanes *)(totals + (part / PARTS * STRIP + row) * LANES + part % PARTS * WIDTH);
}

/* Adds to the sums of some rows and one panel, [2][STRIP][16], or begins them. */
INLINE void add_rows(const int rows, const ELEMENT *x, int64_t stride, const ELEMENT *panel,
                     int64_t inputs, int begins, float *totals) {
    Lanes sums[STRIP][2 * PARTS] = {0};
#pragma GCC unroll 8
    for (int r = 0; r < rows && !begins; r++)
#pragma GCC unroll 4
        for (int p = 0; p < 2 * PARTS; p++) sums[r][p] = *total_of(totals, r, p);
    for (int64_t k = 0; k < inputs; k += STEP, panel += STEP * PANEL)
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            const ELEMENT *each = x + r * stride + k;
#pragma GCC unroll 4
            for (int p = 0; p < 2 * PARTS; p++)
                sums[r][p] = multiply_add(sums[r][p], panel + p * WIDTH * STEP, each);
        }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int p = 0; p < 2 * PARTS; p++) *total_of(totals, r, p) = sums[r][p];
}

/* Adds to a strip's sums, or begins them, what some inputs of a panel contribute. */
static void add_strip(const Strip *x, int64_t from, const ELEMENT *panel, int64_t inputs,
                      int begins, float *sums) {
    for (int64_t r = 0, some; r < x->rows; r += some) {
        const ELEMENT *rows = x->x + r * x->stride + from;
        float *to = sums + r * LANES;
        if (x->rows == STRIP) add_rows(some = STRIP, rows, x->stride, panel, inputs, begins, to);
        else if (x->rows - r >= 3) add_rows(some = 3, rows, x->stride, panel, inputs, begins, to);
        else add_rows(some = 1, rows, x->stride, panel, inputs, begins, to);
    }
}
