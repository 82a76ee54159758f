/* What the sampler asks of rows of logits. */
#include "vectors.h"

#include <float.h>

#define PIECE 2048 /* logits at a time: PERF: those stay in L1 */

/* What has been seen of a row: its highest logit, where the piece with the first of those begins, and
 * the sum of e to the power of each logit, less the highest. */
typedef struct {
    float highest, total;
    int64_t piece;
} Seen;

static void take_piece(Seen *seen, const float *logits, int64_t first, int64_t count) {
    const int64_t whole = count / LANES * LANES;
    f32x16 most = splat(-INFINITY), totals = splat(0);
    for (int64_t i = 0; i < whole; i += LANES) most = max16(load_f32(logits + i), most);
    float highest = max_of(most), total = 0;
    for (int64_t i = whole; i < count; i++) highest = logits[i] > highest ? logits[i] : highest;
    if (highest > seen->highest) {
        seen->total *= expf(seen->highest - highest);
        seen->highest = highest;
        seen->piece = first;
    }
    const float base = seen->highest > -FLT_MAX ? seen->highest : -FLT_MAX;
    for (int64_t i = 0; i < whole; i += LANES) totals += exp16(load_f32(logits + i) - base);
    for (int64_t i = whole; i < count; i++) total += expf(logits[i] - base);
    seen->total += sum_of(totals) + total;
}

/* Of each row [size] float32, `stride` apart: where the largest is (the first of several), and
 * log(sum(exp)). A row with a NaN, or without a finite number, has a sum that is a NaN or infinite.
 */
EXPORT void summarize(const float *logits, int64_t *largest, float *log_sums, int64_t rows,
                      int64_t size, int64_t stride) {
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        const float *row = logits + r * stride;
        Seen seen = {-INFINITY, 0, 0};
        for (int64_t i = 0; i < size; i += PIECE)
            take_piece(&seen, row + i, i, least(PIECE, size - i));
        int64_t at = seen.piece;
        while (at < size && row[at] != seen.highest) at++;
        largest[r] = at < size ? at : 0;
        log_sums[r] = seen.highest + logf(seen.total);
    }
}
