/* Where the results of linear layers go: outputs come 32 at a time, a panel's, with sums in float32.
 * A panel of a gated layer has 16 gates and then their ups.
 *
 * For the element type that the including file defines (see attention.h).
 */
#include "regions.h"

/* Rows of results; `width` elements apart, which for a gated layer are half its outputs. */
typedef struct {
    void *rows;
    const ELEMENT *bias;
    int64_t width, outputs;
    int kind, tiled;
} Output;

INLINE Output output_of(const Linear *layer, void *y, int tiled) {
    int64_t width = layer->kind == GATED ? layer->outputs / 2 : layer->outputs;
    const ELEMENT *bias = (const ELEMENT *)layer->bias;
    return (Output){y, bias, width, layer->outputs, (int)layer->kind, tiled};
}

/* The last panel, where it has fewer than 32 outputs; such a layer is not gated, nor its y tiled. */
static void put_some(const Output *y, int64_t row, int64_t first, f32x16 left, f32x16 right) {
    const int64_t at = row * y->width;
    for (int64_t n = first; n < y->outputs; n++) {
        float sum = n - first < LANES ? left[n - first] : right[n - first - LANES];
        if (y->bias) sum += load1(y->bias + n);
        if (y->kind == WIDE) ((float *)y->rows)[at + n] = sum;
        else ((ELEMENT *)y->rows)[at + n] = narrow1(sum);
    }
}

/* A row's results of the panel that begins with output `first`. */
INLINE void put(const Output *y, int64_t row, int64_t first, f32x16 left, f32x16 right) {
    if (y->outputs - first < PANEL) {
        put_some(y, row, first, left, right);
        return;
    }
    int64_t n = y->kind == GATED ? first / 2 : first, at = place(y->tiled, row, n, y->width);
    if (y->bias) {
        left += load16(y->bias + n);
        right += load16(y->bias + n + (y->kind == GATED ? y->width : LANES));
    }
    if (y->kind == GATED) {
        store16((ELEMENT *)y->rows + at, gate16(left) * right);
    } else if (y->kind == WIDE) {
        store_f32((float *)y->rows + at, left);
        store_f32((float *)y->rows + at + LANES, right);
    } else {
        store_two((ELEMENT *)y->rows + at, left, right);
    }
}
