/* What is done to each number, or to each row: norms and gated activations, for the element type
 * that the including file defines (see attention.h). Computed in float32, rounded once.
 */
#include "regions.h"
#include "vectors.h"

#define SMALL 16384 /* elements: PERF: fewer are done before another thread has begun */

void NAME(rms_norm_region)(const ELEMENT *x, ELEMENT *residual, const float *weight, ELEMENT *y,
                           int tiled, int64_t rows, int64_t size, int64_t stride, float epsilon,
                           Share share) {
    const int64_t beyond = share_of(rows, share.own + 1, share);
    for (int64_t r = share_of(rows, share.own, share); r < beyond; r++) {
        const ELEMENT *from = x + r * stride;
        ELEMENT *sum = residual ? residual + r * size : 0;
        f32x16 squares = splat(0);
        for (int64_t i = 0; i < size; i += LANES) {
            f32x16 a = load16(from + i);
            if (sum) {
                store16(sum + i, a + load16(sum + i));
                a = load16(sum + i);
            }
            squares += a * a;
        }
        if (sum) from = sum;
        float scale = 1.0f / sqrtf(sum_of(squares) / (float)size + epsilon);
        for (int64_t i = 0; i < size; i += LANES)
            store16(y + place(tiled, r, i, size), load16(from + i) * scale * load_f32(weight + i));
    }
    meet(share);
}

/* y[rows][size] = x / sqrt(mean(x^2) + epsilon) * weight (Zhang and Sennrich 2019). With a residual,
 * x is added to that first, and the sum is what is normalised. size is a multiple of 16. */
EXPORT void NAME(rms_norm)(const ELEMENT *x, ELEMENT *residual, const float *weight, ELEMENT *y,
                           int64_t rows, int64_t size, int64_t stride, float epsilon) {
#pragma omp parallel if (rows * size > SMALL)
    NAME(rms_norm_region)(x, residual, weight, y, 0, rows, size, stride, epsilon, team_share());
}

/* y[rows][width] = silu(x[rows][0 .. width]) * x[rows][width .. 2 width] (Shazeer 2020). */
EXPORT void NAME(silu_and_multiply)(const ELEMENT *x, ELEMENT *y, int64_t rows, int64_t width) {
#pragma omp parallel for schedule(static) if (rows * width > SMALL)
    for (int64_t r = 0; r < rows; r++) {
        const ELEMENT *gate = x + r * 2 * width, *up = gate + width;
        for (int64_t i = 0; i < width; i += LANES)
            store16(y + r * width + i, silu16(load16(gate + i)) * load16(up + i));
    }
}
