/* What the sampler asks of rows of logits. */
#include "vectors.h"

/* Of each row [size] float32: where the largest is (the first of several), and log(sum(exp)). A row
 * with a NaN, or without a finite number, has a sum that is a NaN. */
EXPORT void summarize(const float *logits, int64_t *largest, float *log_sums, int64_t rows,
                      int64_t size) {
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        const float *row = logits + r * size;
        const int64_t whole = size / LANES * LANES;
        f32x16 most = splat(-INFINITY), total = splat(0);
        for (int64_t i = 0; i < whole; i += LANES) most = max16(load_f32(row + i), most);
        float highest = max_of(most), rest = 0;
        for (int64_t i = whole; i < size; i++) highest = row[i] > highest ? row[i] : highest;
        int64_t at = 0;
        while (at < size && row[at] != highest) at++;
        for (int64_t i = 0; i < whole; i += LANES) total += exp16(load_f32(row + i) - highest);
        for (int64_t i = whole; i < size; i++) rest += expf(row[i] - highest);
        largest[r] = at < size ? at : 0;
        log_sums[r] = highest + logf(sum_of(total) + rest);
    }
}
