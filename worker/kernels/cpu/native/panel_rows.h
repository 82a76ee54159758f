/* Some rows of x times a panel of weights, by the vector units: sums stay in registers while inputs
 * pass. For the element type that the including file defines (see attention.h); weights are pairs
 * of bfloat16, [K / 2][32][2], or beside float32 [K][32] in float16 or float32.
 *
 * A sum takes one input (or pair) after another, whatever is computed beside it: a row's results
 * depend neither on the other rows nor on the number of threads.
 */
#include "regions.h"
#include "vectors.h"

#define STRIP (WIDTH == LANES ? 8 : 6)     /* rows whose sums registers hold: of 2 vectors, or, */
#define WIDE_ROWS (WIDTH == LANES ? 8 : 2) /* of so few, of the whole panel */
#define STRIP_SUMS (2 * STRIP * LANES)     /* [2][STRIP][16] */

#if STEP == 2

typedef const bf16 *Weights;

/* Those of an input (or pair), and of vector `part` of the panel's outputs. */
INLINE Weights weights_at(const int form, const void *panel, int64_t input, int part) {
    (void)form; /* always pairs */
    return (const bf16 *)panel + input * PANEL + part * WIDTH * STEP;
}

#else

typedef Lanes Weights;

INLINE Weights weights_at(const int form, const void *panel, int64_t input, int part) {
    const int64_t at = input * PANEL + part * WIDTH;
    if (form == SINGLES) return *(const Lanes *)((const float *)panel + at);
    const uint16_t *halves = (const uint16_t *)panel + at;
#if defined(__AVX512F__)
    return (Lanes)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i_u *)halves));
#else
    return (Lanes)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i_u *)halves));
#endif
}

#endif

INLINE Lanes add_product(Lanes sum, Weights weights, const ELEMENT *x) {
#if STEP == 2
    return multiply_add(sum, weights, x);
#else
    return sum + weights * *x;
#endif
}

INLINE Lanes *total_of(float *totals, int row, int part) {
    return (Lanes *)(totals + (part / PARTS * STRIP + row) * LANES + part % PARTS * WIDTH);
}

/* What is wanted later, on its way into the L2 cache meanwhile: so many bytes of it with each
 * input. */
typedef struct {
    const char *at;
    int64_t step_bytes;
} Wanted;

/* Adds to the sums of some rows and of `parts` vectors of outputs, or begins them. */
INLINE void add_parts(const int form, const int rows, const int first, const int parts,
                      const ELEMENT *x, int64_t stride, const void *panel, int64_t inputs,
                      Wanted wanted, int begins, float *totals) {
    Lanes sums[STRIP][2 * PARTS] = {0};
#pragma GCC unroll 8
    for (int r = 0; r < rows && !begins; r++)
#pragma GCC unroll 4
        for (int p = 0; p < parts; p++) sums[r][p] = *total_of(totals, r, first + p);
    for (int64_t k = 0; k < inputs; k += 2)
#pragma GCC unroll 2
        for (int s = 0; s < 2; s += STEP) {
            Weights some[2 * PARTS];
            __builtin_prefetch(wanted.at, 0, 2);
            if (form == SINGLES) __builtin_prefetch(wanted.at + wanted.step_bytes / 2, 0, 2);
            wanted.at += wanted.step_bytes;
#pragma GCC unroll 4
            for (int p = 0; p < parts; p++) some[p] = weights_at(form, panel, k + s, first + p);
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
                for (int p = 0; p < parts; p++)
                    sums[r][p] = add_product(sums[r][p], some[p], x + r * stride + k + s);
        }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int p = 0; p < parts; p++) *total_of(totals, r, first + p) = sums[r][p];
}

/* How often such a strip passes over a panel. */
INLINE int64_t passes_of(int64_t rows) { return rows <= WIDE_ROWS ? 1 : PARTS; }

/* Adds to the sums of at most STRIP rows and one panel, or begins them, what `inputs` inputs (an
 * even number) contribute. */
INLINE void add_rows(const int form, const int rows, const ELEMENT *x, int64_t stride,
                     const void *panel, int64_t inputs, Wanted wanted, int begins, float *totals) {
    if (rows <= WIDE_ROWS) {
        add_parts(form, rows, 0, 2 * PARTS, x, stride, panel, inputs, wanted, begins, totals);
    } else {
        add_parts(form, rows, 0, 2, x, stride, panel, inputs, wanted, begins, totals);
        wanted.at += inputs * wanted.step_bytes;
        add_parts(form, rows, 2, 2, x, stride, panel, inputs, wanted, begins, totals);
    }
}

INLINE void add_strip(const int form, int64_t rows, const ELEMENT *x, int64_t stride,
                      const void *panel, int64_t inputs, Wanted wanted, int begins, float *totals) {
    switch (rows) {
        case 1: add_rows(form, 1, x, stride, panel, inputs, wanted, begins, totals); break;
        case 2: add_rows(form, 2, x, stride, panel, inputs, wanted, begins, totals); break;
        case 3: add_rows(form, 3, x, stride, panel, inputs, wanted, begins, totals); break;
        case 4: add_rows(form, 4, x, stride, panel, inputs, wanted, begins, totals); break;
        case 5: add_rows(form, 5, x, stride, panel, inputs, wanted, begins, totals); break;
#if STRIP > 6
        case 6: add_rows(form, 6, x, stride, panel, inputs, wanted, begins, totals); break;
        case 7: add_rows(form, 7, x, stride, panel, inputs, wanted, begins, totals); break;
#endif
        default: add_rows(form, STRIP, x, stride, panel, inputs, wanted, begins, totals);
    }
}
