/* What is done to each number, or to each row: norms, activations and sums, for the element type that
 * the including file defines (see attention.h). Computed in float32, rounded once.
 */
#include "activations.h"
#include "regions.h"
#include "vectors.h"

#define SMALL 16384 /* elements: PERF: fewer are done before another thread has begun */
#define PIECE 256   /* columns: rows are cut, so that few wide ones are work for all threads */

/* y, in place if it is x and not in tiles. */
INLINE void NAME(norm_row)(const Norm *norm, const ELEMENT *x, ELEMENT *y, int tiled, int64_t row) {
    const int64_t size = norm->size;
    float mean = 0;
    if (norm->kind == LAYER_NORM) {
        f32x16 sum = splat(0);
        for (int64_t i = 0; i < size; i += LANES) sum += load16(x + i);
        mean = sum_of(sum) / (float)size;
    }
    f32x16 squares = splat(0);
    for (int64_t i = 0; i < size; i += LANES) {
        f32x16 a = load16(x + i) - mean;
        squares += a * a;
    }
    float scale = 1.0f / sqrtf(sum_of(squares) / (float)size + norm->epsilon);
    for (int64_t i = 0; i < size; i += LANES) {
        f32x16 a = (load16(x + i) - mean) * scale * load_f32(norm->weight + i);
        if (norm->bias) a += load_f32(norm->bias + i);
        store16(y + place(tiled, row, i, size), a);
    }
}

void NAME(norm_region)(const Norm *norm, const ELEMENT *x, ELEMENT *residual, ELEMENT *y, int tiled,
                       int64_t rows, int64_t size, int64_t stride, Share share) {
    for (Work work = parts_of(rows, share); next_part(&work);)
        for (int64_t r = work.first; r < work.beyond; r++) {
            const ELEMENT *from = x + r * stride;
            if (residual) {
                ELEMENT *sum = residual + r * size;
                for (int64_t i = 0; i < size; i += LANES)
                    store16(sum + i, load16(from + i) + load16(sum + i));
                from = sum;
            }
            if (norm->kind != NO_NORM) {
                NAME(norm_row)(norm, from, y, tiled, r);
                continue;
            }
            for (int64_t i = 0; i < size; i += LANES)
                memcpy(y + place(tiled, r, i, size), from + i, LANES * sizeof(ELEMENT));
        }
}

/* In place, the first `width` numbers of each row, so many at a time as the norm has. */
void NAME(norm_parts_region)(const Norm *norm, ELEMENT *x, int64_t rows, int64_t width,
                             int64_t stride, Share share) {
    const int64_t parts = width / norm->size;
    for (Work work = parts_of(rows * parts, share); next_part(&work);)
        for (int64_t p = work.first; p < work.beyond; p++) {
            ELEMENT *part = x + p / parts * stride + p % parts * norm->size;
            NAME(norm_row)(norm, part, part, 0, 0);
        }
}

/* y[rows][size] = norm(x), rows of x `stride` apart. With a residual, x is added to that first, and
 * the sum is what is normalised. size is a multiple of 16. */
EXPORT void NAME(norm)(const Norm *norm, const ELEMENT *x, ELEMENT *residual, ELEMENT *y,
                       int64_t rows, int64_t stride) {
    Team *team = new_team();
#pragma omp parallel if (rows * norm->size > SMALL)
    NAME(norm_region)(norm, x, residual, y, 0, rows, norm->size, stride, team_share(team));
}

/* Some columns of a row; x is that row's first half where it is gated. */
INLINE void NAME(activate_piece)(const int64_t function, const int gated, const ELEMENT *x,
                                 ELEMENT *y, int tiled, int64_t row, int64_t first, int64_t beyond,
                                 int64_t width) {
    for (int64_t i = first; i < beyond; i += LANES) {
        const int64_t at = place(tiled, row, i, width);
        if (gated) {
            const ELEMENT *gate = x + row * 2 * width + i;
            store16(y + at, activation16(function, load16(gate)) * load16(gate + width));
        } else {
            store16(y + at, activation16(function, load16(x + at)));
        }
    }
}

void NAME(activate_region)(const Activation *activation, const ELEMENT *x, ELEMENT *y, int tiled,
                           int64_t rows, int64_t width, Share share) {
    const int64_t pieces = (width + PIECE - 1) / PIECE, all = rows * pieces;
    const int gated = activation->gated != 0;
    for (Work work = parts_of(all, share); next_part(&work);)
        for (int64_t p = work.first; p < work.beyond; p++) {
            const int64_t row = p / pieces, i = p % pieces * PIECE, end = least(i + PIECE, width);
            switch (activation->function) {
                case SILU:
                    NAME(activate_piece)(SILU, gated, x, y, tiled, row, i, end, width);
                    break;
                case GELU:
                    NAME(activate_piece)(GELU, gated, x, y, tiled, row, i, end, width);
                    break;
                case GELU_TANH:
                    NAME(activate_piece)(GELU_TANH, gated, x, y, tiled, row, i, end, width);
                    break;
                default: NAME(activate_piece)(RELU, gated, x, y, tiled, row, i, end, width);
            }
        }
}

/* y[rows][width] = activation(x), where gated (Shazeer 2020) times the second half of x[rows][2 width].
 * width is a multiple of 16. */
EXPORT void NAME(activate)(const Activation *activation, const ELEMENT *x, ELEMENT *y, int64_t rows,
                           int64_t width) {
    Team *team = new_team();
#pragma omp parallel if (rows * width > SMALL)
    NAME(activate_region)(activation, x, y, 0, rows, width, team_share(team));
}

/* residual += x; a multiple of 16 elements. */
void NAME(add_region)(const ELEMENT *x, ELEMENT *residual, int64_t elements, Share share) {
    for (Work work = parts_of(elements / LANES, share); next_part(&work);)
        for (int64_t g = work.first; g < work.beyond; g++) {
            ELEMENT *sum = residual + g * LANES;
            store16(sum, load16(x + g * LANES) + load16(sum));
        }
}
