/* Keys and values on their way into the cache, for the element types that the including file defines
 * (see attention.h): a step's tokens are rotated, and put where attention reads them.
 */
#include "attention_step.h"
#include "vectors.h"

/* Halves of a head's first `channels`, as Su et al. 2021; sines of the second half. */
INLINE void NAME(rotate)(ELEMENT *head, const ELEMENT *cosines, const ELEMENT *sines,
                         int64_t channels) {
    int64_t half = channels / 2, i = 0;
    ELEMENT *low = head, *high = head + half;
    sines += half;
    for (; i + LANES <= half; i += LANES) {
        f32x16 a = load16(low + i), b = load16(high + i);
        f32x16 c = load16(cosines + i), s = load16(sines + i);
        store16(low + i, a * c - b * s);
        store16(high + i, b * c + a * s);
    }
    for (; i < half; i++) {
        float a = load1(low + i), b = load1(high + i), c = load1(cosines + i), s = load1(sines + i);
        low[i] = narrow1(a * c - b * s);
        high[i] = narrow1(b * c + a * s);
    }
}

/* Some tokens' keys of one head, `width` elements apart, into a block from `offset` on: a token a
 * lane, each of them STEP elements. */
static void NAME(put_keys)(CACHED *block, const ELEMENT *keys, int64_t width, int64_t offset,
                           int64_t tokens, int64_t dim) {
    if (tokens == BLOCK && dim % (STEP * LANES) == 0) { /* PERF: 16 by 16 at a time */
        for (int64_t i = 0; i < dim; i += STEP * LANES) {
            u32x16 rows[LANES];
#pragma GCC unroll 16
            for (int t = 0; t < LANES; t++) rows[t] = *(const u32x16 *)(keys + t * width + i);
            transpose16(rows);
#pragma GCC unroll 16
            for (int t = 0; t < LANES; t++) put_key_parts(block + (i + t * STEP) * BLOCK, rows[t]);
        }
        return;
    }
    for (int64_t t = 0; t < tokens; t++)
        for (int64_t i = 0; i < dim; i += STEP)
            put_key_part(block + i * BLOCK + (offset + t) * STEP, keys + t * width + i);
}

static void NAME(enter)(const AttentionStep *step, const StoreUnit *unit, ELEMENT *qkv,
                        CACHED *keys, CACHED *values, const ELEMENT *cosines,
                        const ELEMENT *sines, int64_t angle_stride) {
    const int64_t dim = step->head_dim, heads = step->heads, kv_heads = step->kv_heads;
    const int64_t block_elements = BLOCK * dim, width = (heads + 2 * kv_heads) * dim;
    ELEMENT *rows = qkv + unit->row * width;
    for (int64_t t = 0; t < unit->tokens && cosines; t++)
        for (int64_t h = 0; h < heads + kv_heads; h++)
            NAME(rotate)(rows + t * width + h * dim, cosines + (unit->row + t) * angle_stride,
                         sines + (unit->row + t) * angle_stride, step->channels);
    for (int64_t h = 0; h < kv_heads; h++) {
        const int64_t place = (unit->block * kv_heads + h) * block_elements;
        const ELEMENT *key = rows + (heads + h) * dim, *value = key + kv_heads * dim;
        NAME(put_keys)(keys + place, key, width, unit->offset, unit->tokens, dim);
        /* What is after the last token may be multiplied by 0: it must not be a NaN. */
        if (unit->offset == 0) memset(values + place, 0, block_elements * sizeof(CACHED));
        for (int64_t t = 0; t < unit->tokens; t++)
            put_value(values + place, value + t * width, unit->offset + t, dim);
    }
}
