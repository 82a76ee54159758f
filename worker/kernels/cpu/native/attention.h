/* Attention over the paged KV cache, for the element type that the including file defines: ELEMENT,
 * STEP (elements that one lane of a vector takes: 2 of bfloat16, 1 of float32), load16, store16,
 * put_value (see attention_store.h), weight16 (e to a power of at most 0), multiply_add (acc[i] +=
 * sum over STEP of a[STEP i + s] * b[s]) and NAME(name).
 *
 * Blocks of 16 tokens, one token a lane. So that neither products nor sums cross lanes, the cache has
 *   keys   [blocks, kv heads, head_dim / STEP, 16, STEP]   (transposed),
 *   values [blocks, kv heads, 16 / STEP, head_dim, STEP],
 * in the place of [16, head_dim]. Softmax is online (Milakov and Gimelshein 2018; Dao et al. 2022),
 * in float32, eight blocks at a time. Long sequences that decode are cut at fixed positions and
 * merged, so a result depends neither on the batch nor on the number of threads.
 */
#include "attention_store.h"
#include "regions.h"
#include "vectors.h"

#define ROWS ATTENTION_ROWS
#define GROUP 8          /* blocks at a time */
#define KEYS (GROUP * BLOCK)
#define FLOOR (-1e30f)   /* a running maximum before there is one */

/* --- products -------------------------------------------------------------------------------- */

/* scores[rows][16] of one block of keys. */
INLINE void NAME(scores_of)(const int rows, const ELEMENT *queries, const ELEMENT *keys,
                            float *scores, int64_t dim) {
    const int chains = rows <= 4 ? 2 : 1;
    f32x16 sums[8][2];
    for (int r = 0; r < rows; r++) sums[r][0] = sums[r][1] = splat(0);
    for (int64_t i = 0; i < dim; i += STEP * chains)
#pragma GCC unroll 2
        for (int c = 0; c < chains; c++)
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++)
                sums[r][c] = multiply_add(sums[r][c], keys + (i + c * STEP) * BLOCK,
                                          queries + r * dim + i + c * STEP);
    for (int r = 0; r < rows; r++)
        store_f32(scores + r * KEYS, chains == 2 ? sums[r][0] + sums[r][1] : sums[r][0]);
}

static void NAME(scores)(int64_t rows, const ELEMENT *queries, const ELEMENT *keys, float *scores,
                         int64_t dim) {
    for (; rows > 0; rows -= 8, queries += 8 * dim, scores += 8 * KEYS) switch (rows) {
            case 1: NAME(scores_of)(1, queries, keys, scores, dim); break;
            case 2: NAME(scores_of)(2, queries, keys, scores, dim); break;
            case 3: NAME(scores_of)(3, queries, keys, scores, dim); break;
            case 4: NAME(scores_of)(4, queries, keys, scores, dim); break;
            case 5: NAME(scores_of)(5, queries, keys, scores, dim); break;
            case 6: NAME(scores_of)(6, queries, keys, scores, dim); break;
            case 7: NAME(scores_of)(7, queries, keys, scores, dim); break;
            default: NAME(scores_of)(8, queries, keys, scores, dim);
        }
}

/* sums[rows][dim] += weights[rows][16 per block] values, for some blocks and 16 · lanes of dim. */
INLINE void NAME(mix_of)(const int rows, const int lanes, const ELEMENT *weights,
                         const ELEMENT *const *values, int64_t blocks, float *sums, int64_t dim) {
    f32x16 acc[4][4];
    for (int r = 0; r < rows; r++)
        for (int d = 0; d < lanes; d++) acc[r][d] = load_f32(sums + r * dim + d * LANES);
    for (int64_t b = 0; b < blocks; b++) {
        const ELEMENT *block = values[b];
        for (int64_t j = 0; j < BLOCK / STEP; j++)
#pragma GCC unroll 4
            for (int d = 0; d < lanes; d++)
#pragma GCC unroll 4
                for (int r = 0; r < rows; r++)
                    acc[r][d] = multiply_add(acc[r][d], block + (j * dim + d * LANES) * STEP,
                                             weights + r * KEYS + b * BLOCK + j * STEP);
    }
    for (int r = 0; r < rows; r++)
        for (int d = 0; d < lanes; d++) store_f32(sums + r * dim + d * LANES, acc[r][d]);
}

INLINE void NAME(mix_rows)(const int rows, const ELEMENT *weights, const ELEMENT *const *values,
                           int64_t blocks, float *sums, int64_t dim) {
    const ELEMENT *shifted[GROUP];
    for (int64_t d = 0; d < dim; d += 4 * LANES) {
        for (int64_t b = 0; b < blocks; b++) shifted[b] = values[b] + d * STEP;
        switch ((dim - d) / LANES) {
            case 1: NAME(mix_of)(rows, 1, weights, shifted, blocks, sums + d, dim); break;
            case 2: NAME(mix_of)(rows, 2, weights, shifted, blocks, sums + d, dim); break;
            case 3: NAME(mix_of)(rows, 3, weights, shifted, blocks, sums + d, dim); break;
            default: NAME(mix_of)(rows, 4, weights, shifted, blocks, sums + d, dim);
        }
    }
}

static void NAME(mix)(int64_t rows, const ELEMENT *weights, const ELEMENT *const *values,
                      int64_t blocks, float *sums, int64_t dim) {
    for (; rows > 0; rows -= 4, weights += 4 * KEYS, sums += 4 * dim) switch (rows) {
            case 1: NAME(mix_rows)(1, weights, values, blocks, sums, dim); break;
            case 2: NAME(mix_rows)(2, weights, values, blocks, sums, dim); break;
            case 3: NAME(mix_rows)(3, weights, values, blocks, sums, dim); break;
            default: NAME(mix_rows)(4, weights, values, blocks, sums, dim);
        }
}

/* --- one item -------------------------------------------------------------------------------- */

/* What some queries have seen: their highest scores, and the totals of their weights by lane. */
typedef struct {
    float most[ROWS] __attribute__((aligned(64)));
    f32x16 totals[ROWS];
} NAME(Running);

/* Scores of 16 keys, of which the first is number `key`: capped, and masked but for some. */
INLINE f32x16 NAME(seen_score)(const AttentionStep *step, f32x16 score, int64_t key, int64_t first,
                               int64_t beyond) {
    static const i32x16 lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    if (step->cap > 0) score = step->cap / step->scale * tanh16(score * (step->scale / step->cap));
    i32x16 keys = lane + (int32_t)key;
    i32x16 seen = (keys >= (int32_t)first) & (keys < (int32_t)beyond);
    return select16(seen, score, splat(-INFINITY));
}

/* Capped and masked scores of a row, in place where needed; the highest of them all, scaled. */
INLINE float NAME(highest)(const AttentionStep *step, float *scores, int64_t first,
                           int64_t beyond) {
    f32x16 most = splat(-INFINITY);
    if (first <= 0 && beyond == KEYS && step->cap <= 0) {
#pragma GCC unroll 8
        for (int b = 0; b < GROUP; b++) most = max16(load_f32(scores + b * BLOCK), most);
        return max_of(most) * step->scale;
    }
    for (int b = 0; b < GROUP; b++) {
        f32x16 score = load_f32(scores + b * BLOCK);
        score = NAME(seen_score)(step, score, b * BLOCK, first, beyond);
        store_f32(scores + b * BLOCK, score);
        most = max16(score, most);
    }
    return max_of(most) * step->scale;
}

/* Scores of a tile to weights; `sums` so far are made worth what they are under the new maxima. */
static void NAME(weigh)(const AttentionStep *step, const Item *item, int64_t rows, int64_t block,
                        int64_t blocks, float *scores, ELEMENT *weights, NAME(Running) *running,
                        float *sums) {
    const int64_t dim = step->head_dim;
    float most[ROWS] __attribute__((aligned(64))), kept[ROWS] __attribute__((aligned(64)));
    for (int64_t r = 0; r < rows; r += LANES) store_f32(most + r, load_f32(running->most + r));
    for (int64_t r = 0; r < rows; r++) {
        int64_t beyond = item->position + r / item->heads + 1 - block * BLOCK;
        int64_t first = step->window ? beyond - step->window : 0;
        if (beyond > blocks * BLOCK) beyond = blocks * BLOCK;
        float highest = NAME(highest)(step, scores + r * KEYS, first, beyond);
        if (highest > most[r]) most[r] = highest;
    }
    for (int64_t r = 0; r < rows; r += LANES) {
        store_f32(kept + r, exp16(load_f32(running->most + r) - load_f32(most + r)));
        store_f32(running->most + r, load_f32(most + r));
    }
    for (int64_t r = 0; r < rows; r++) {
        f32x16 total = running->totals[r] * kept[r];
#pragma GCC unroll 8
        for (int b = 0; b < GROUP; b++) {
            f32x16 weight = weight16(load_f32(scores + r * KEYS + b * BLOCK) * step->scale - most[r]);
            total += weight;
            store16(weights + r * KEYS + b * BLOCK, weight);
        }
        running->totals[r] = total;
        if (kept[r] != 1.0f)
            for (int64_t d = 0; d < dim; d += LANES)
                store_f32(sums + r * dim + d, load_f32(sums + r * dim + d) * kept[r]);
    }
}

/* Where attention's results go: [T, heads, head_dim], perhaps in tiles. */
typedef struct {
    ELEMENT *rows;
    int tiled;
} NAME(Result);

static void NAME(finish)(const AttentionStep *step, const float *sums, float total,
                         NAME(Result) to, int64_t row, int64_t head) {
    const int64_t dim = step->head_dim, width = step->heads * dim;
    for (int64_t d = 0; d < dim; d += LANES)
        store16(to.rows + place(to.tiled, row, head * dim + d, width), load_f32(sums + d) / total);
}

/* The next blocks are on their way while these are computed. */
INLINE void NAME(prefetch)(const ELEMENT *from, int64_t elements) {
    for (int64_t i = 0; i < elements; i += 64 / (int64_t)sizeof(ELEMENT))
        __builtin_prefetch(from + i, 0, 2);
}

/* What row r of an item has found: the sums, their maximum and total. */
static void NAME(put_row)(const AttentionStep *step, const Item *item, int64_t r, int64_t head,
                          const float *sums, float most, float total, NAME(Result) to) {
    const int64_t dim = step->head_dim, at = head + r % item->heads;
    if (item->part < 0) {
        NAME(finish)(step, sums, total, to, item->row + r / item->heads, at);
        return;
    }
    float *part = step->parts + (item->part * step->heads + at) * (dim + LANES);
    memcpy(part, sums, dim * sizeof(float));
    part[dim] = most;
    part[dim + 1] = total;
}

#if defined(TILE_ROWS)
#include "attention_many.h"
#endif

/* Up to 32 queries, by the vector units alone. */
static void NAME(attend_rows)(const AttentionStep *step, const Item *item, int64_t kv_head,
                              const ELEMENT *qkv, const ELEMENT *keys, const ELEMENT *values,
                              NAME(Result) to) {
    const int64_t dim = step->head_dim, group = step->heads / step->kv_heads;
    const int64_t width = (step->heads + 2 * step->kv_heads) * dim;
    const int64_t rows = item->tokens * item->heads;
    ELEMENT queries[ROWS * MOST_DIM] __attribute__((aligned(64)));
    float sums[ROWS * MOST_DIM] __attribute__((aligned(64)));
    float scores[ROWS * KEYS] __attribute__((aligned(64)));
    ELEMENT weights[ROWS * KEYS] __attribute__((aligned(64)));
    NAME(Running) running;
    const int64_t head = kv_head * group + item->head;
    for (int64_t t = 0; t < item->tokens; t++)
        memcpy(queries + t * item->heads * dim, qkv + (item->row + t) * width + head * dim,
               item->heads * dim * sizeof(ELEMENT));
    memset(sums, 0, rows * dim * sizeof(float));
    for (int64_t r = 0; r < ROWS; r += LANES) store_f32(running.most + r, splat(FLOOR));
    for (int64_t r = 0; r < rows; r++) running.totals[r] = splat(0);
    const int64_t *table = step->tables + item->sequence * step->table_width;
    for (int64_t b = item->first_block; b < item->last_block; b += GROUP) {
        int64_t blocks = item->last_block - b < GROUP ? item->last_block - b : GROUP;
        const ELEMENT *block_keys[GROUP], *block_values[GROUP];
        for (int64_t i = 0; i < blocks; i++) {
            int64_t place = (table[b + i] * step->kv_heads + kv_head) * BLOCK * dim;
            block_keys[i] = keys + place;
            block_values[i] = values + place;
            if (b + i + GROUP < item->last_block) {
                int64_t next = (table[b + i + GROUP] * step->kv_heads + kv_head) * BLOCK * dim;
                NAME(prefetch)(keys + next, BLOCK * dim);
                NAME(prefetch)(values + next, BLOCK * dim);
            }
            NAME(scores)(rows, queries, block_keys[i], scores + i * BLOCK, dim);
        }
        NAME(weigh)(step, item, rows, b, blocks, scores, weights, &running, sums);
        NAME(mix)(rows, weights, block_values, blocks, sums, dim);
    }
    for (int64_t r = 0; r < rows; r++)
        NAME(put_row)(step, item, r, head, sums + r * dim, running.most[r],
                      sum_of(running.totals[r]), to);
}

static void NAME(attend_item)(const AttentionStep *step, const Item *item, int64_t kv_head,
                              const ELEMENT *qkv, const ELEMENT *keys, const ELEMENT *values,
                              NAME(Result) to) {
#if defined(TILE_ROWS)
    if (item->tokens * item->heads >= TILE_ROWS && step->head_dim % (2 * LANES) == 0) {
        attend_tiles(step, item, kv_head, qkv, keys, values, to);
        return;
    }
#endif
    for (int64_t t = 0; t < item->tokens;) {
        const Item tile = tile_of(step, item, t);
        NAME(attend_rows)(step, &tile, kv_head, qkv, keys, values, to);
        t += tile.tokens;
    }
}

/* One head of a sequence that was cut. */
static void NAME(merge)(const AttentionStep *step, const Merge *merge, int64_t head,
                        NAME(Result) output) {
    const int64_t dim = step->head_dim, next = step->heads * (dim + LANES);
    const float *parts = step->parts + (merge->part * step->heads + head) * (dim + LANES);
    float sums[MOST_DIM] __attribute__((aligned(64))), most = FLOOR, total = 0;
    memset(sums, 0, dim * sizeof(float));
    for (int64_t p = 0; p < merge->parts; p++)
        if (parts[p * next + dim] > most) most = parts[p * next + dim];
    for (int64_t p = 0; p < merge->parts; p++) {
        const float *part = parts + p * next;
        float worth = exp16(splat(part[dim] - most))[0];
        total += part[dim + 1] * worth;
        for (int64_t d = 0; d < dim; d += LANES)
            store_f32(sums + d, load_f32(sums + d) + load_f32(part + d) * worth);
    }
    NAME(finish)(step, sums, total, output, merge->row, head);
}

void NAME(attend_region)(const AttentionStep *step, ELEMENT *qkv, ELEMENT *keys, ELEMENT *values,
                         const ELEMENT *cosines, const ELEMENT *sines, int64_t angle_stride,
                         ELEMENT *output, int tiled) {
    const NAME(Result) to = {output, tiled};
#pragma omp for schedule(static)
    for (int64_t u = 0; u < step->num_units; u++)
        NAME(enter)(step, step->units + u, qkv, keys, values, cosines, sines, angle_stride);
#pragma omp for schedule(dynamic, 1)
    for (int64_t i = 0; i < step->num_items * step->kv_heads; i++) {
        /* The last items of a prompt are the longest: they go first. */
        const Item *item = step->items + step->num_items - 1 - i / step->kv_heads;
        NAME(attend_item)(step, item, i % step->kv_heads, qkv, keys, values, to);
    }
    if (step->num_merges)
#pragma omp for schedule(static)
        for (int64_t i = 0; i < step->num_merges * step->heads; i++)
            NAME(merge)(step, step->merges + i / step->heads, i % step->heads, to);
}

/* qkv [T, heads + 2 kv heads, head_dim], rotated in place; keys and values as above; cosines and
 * sines [T, channels] with rows `angle_stride` apart, or NULL; output [T, heads, head_dim]. */
EXPORT void NAME(attend)(const AttentionStep *step, ELEMENT *qkv, ELEMENT *keys, ELEMENT *values,
                         const ELEMENT *cosines, const ELEMENT *sines, int64_t angle_stride,
                         ELEMENT *output) {
#pragma omp parallel
    NAME(attend_region)(step, qkv, keys, values, cosines, sines, angle_stride, output, 0);
}
