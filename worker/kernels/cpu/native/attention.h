/* Attention over the paged KV cache, for the element types that the including file defines: ELEMENT,
 * CACHED (of keys and values in the cache), STEP (elements that one lane of a vector takes: 2 of
 * bfloat16, 1 of float32), load16, store16, put_value, put_key_part and put_key_parts (see
 * attention_store.h), weight_lanes (e to a power of at most 0), store_lanes, multiply_add (acc[i] +=
 * sum over STEP of a[STEP i + s] * b[s], a in the cache) and NAME(name).
 *
 * Blocks of 16 tokens, one token a lane. So that neither products nor sums cross lanes, the cache has
 *   keys   [blocks, kv heads, head_dim / STEP, 16, STEP]   (transposed),
 *   values [blocks, kv heads, 16 / STEP, head_dim, STEP],
 * in the place of [16, head_dim]. Softmax is online (Milakov and Gimelshein 2018; Dao et al. 2022),
 * in float32, eight blocks at a time. Long sequences that decode are cut at fixed positions and
 * merged, so a result depends neither on the batch nor on the number of threads.
 */
#include "attention_products.h"
#include "attention_store.h"
#include "regions.h"
#include "vectors.h"

#define ROWS ATTENTION_ROWS
#define FLOOR (-1e30f) /* a running maximum before there is one */

/* --- one item -------------------------------------------------------------------------------- */

/* What some queries have seen: their highest scores, and the totals of their weights by lane. */
typedef struct {
    float most[ROWS] __attribute__((aligned(64)));
    Lanes totals[ROWS];
} NAME(Running);

/* Scores of as many keys as a register has lanes, of which the first is number `key`: capped, and
 * masked but for some. */
INLINE Lanes NAME(seen_score)(const AttentionStep *step, Lanes score, int64_t key, int64_t first,
                              int64_t beyond) {
    if (step->cap > 0)
        score = step->cap / step->scale * tanh_lanes(score * (step->scale / step->cap));
    const Whole keys = *(const Whole *)lane_numbers + (int32_t)key;
    const Whole seen = (keys >= (int32_t)first) & (keys < (int32_t)beyond);
    return select_lanes(seen, score, (Lanes){0} - INFINITY);
}

/* Capped and masked scores of a row, in place where needed; the highest of them all, scaled. */
INLINE float NAME(highest)(const AttentionStep *step, float *scores, int64_t keys, int64_t first,
                           int64_t beyond) {
    Lanes most = (Lanes){0} - INFINITY;
    if (first <= 0 && beyond == keys && step->cap <= 0) {
        for (int64_t k = 0; k < keys; k += WIDTH) most = max_lanes(*(Lanes *)(scores + k), most);
        return most_of(most) * step->scale;
    }
    for (int64_t k = 0; k < keys; k += WIDTH) {
        Lanes *score = (Lanes *)(scores + k);
        *score = NAME(seen_score)(step, *score, k, first, beyond);
        most = max_lanes(*score, most);
    }
    return most_of(most) * step->scale;
}

/* Scores of a tile to weights; `sums` so far are made worth what they are under the new maxima. */
static void NAME(weigh)(const AttentionStep *step, const Item *item, int64_t rows, int64_t block,
                        int64_t blocks, float *scores, ELEMENT *weights, NAME(Running) *running,
                        float *sums) {
    const int64_t dim = step->head_dim, keys = blocks * BLOCK;
    float most[ROWS] __attribute__((aligned(64))), kept[ROWS] __attribute__((aligned(64)));
    for (int64_t r = 0; r < rows; r += LANES) store_f32(most + r, load_f32(running->most + r));
    for (int64_t r = 0; r < rows; r++) {
        int64_t beyond = item->position + r / item->heads + 1 - block * BLOCK;
        int64_t first = step->window ? beyond - step->window : 0;
        if (beyond > keys) beyond = keys;
        float highest = NAME(highest)(step, scores + r * KEYS, keys, first, beyond);
        if (highest > most[r]) most[r] = highest;
    }
    for (int64_t r = 0; r < rows; r += LANES) {
        store_f32(kept + r, exp16(load_f32(running->most + r) - load_f32(most + r)));
        store_f32(running->most + r, load_f32(most + r));
    }
    for (int64_t r = 0; r < rows; r++) {
        Lanes total = running->totals[r] * kept[r];
        for (int64_t k = 0; k < keys; k += WIDTH) {
            const Lanes score = *(const Lanes *)(scores + r * KEYS + k);
            const Lanes weight = weight_lanes(score * step->scale - most[r]);
            total += weight;
            store_lanes(weights + r * KEYS + k, weight);
        }
        running->totals[r] = total;
        if (kept[r] != 1.0f)
            for (int64_t d = 0; d < dim; d += WIDTH) *(Lanes *)(sums + r * dim + d) *= kept[r];
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
INLINE void NAME(prefetch)(const CACHED *from, int64_t elements) {
    for (int64_t i = 0; i < elements; i += 64 / (int64_t)sizeof(CACHED))
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

/* Up to 32 queries, by the vector units alone. `after`: what this thread is likely to read then.
 * PERF: while keys are read their values are on the way, while values are the next keys. */
static void NAME(attend_rows)(const AttentionStep *step, const Item *item, int64_t kv_head,
                              const ELEMENT *qkv, const CACHED *keys, const CACHED *values,
                              NAME(Result) to, Upcoming after) {
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
    for (int64_t r = 0; r < rows; r++) running.totals[r] = (Lanes){0};
    const int64_t *table = step->tables + item->sequence * step->table_width;
    for (int64_t b = item->first_block; b < item->last_block; b += GROUP) {
        int64_t blocks = item->last_block - b < GROUP ? item->last_block - b : GROUP;
        const Upcoming next = b + GROUP < item->last_block
                                  ? upcoming_from(step, item, kv_head, b + GROUP)
                                  : after;
        const CACHED *block_keys[GROUP], *block_values[GROUP], *next_keys[GROUP];
        for (int64_t i = 0; i < blocks; i++) {
            int64_t place = (table[b + i] * step->kv_heads + kv_head) * BLOCK * dim;
            next_keys[i] = block_keys[i] = keys + place;
            block_values[i] = values + place;
        }
        for (int64_t i = 0; i < least(GROUP, next.blocks); i++) {
            next_keys[i] = keys + (next.table[i] * step->kv_heads + next.kv_head) * BLOCK * dim;
            if (i >= blocks) NAME(prefetch)(next_keys[i], BLOCK * dim);
        }
        for (int64_t i = 0; i < blocks; i++)
            NAME(scores)(rows, queries, block_keys[i], block_values[i], scores + i * BLOCK, dim);
        NAME(weigh)(step, item, rows, b, blocks, scores, weights, &running, sums);
        NAME(mix)(rows, weights, block_values, next_keys, blocks, sums, dim);
    }
    for (int64_t r = 0; r < rows; r++)
        NAME(put_row)(step, item, r, head, sums + r * dim, running.most[r],
                      sum_of_lanes(running.totals[r]), to);
}

static void NAME(attend_item)(const AttentionStep *step, const Item *item, int64_t kv_head,
                              const ELEMENT *qkv, const CACHED *keys, const CACHED *values,
                              NAME(Result) to, Upcoming after) {
#if defined(TILE_ROWS)
    if (item->tokens * item->heads >= TILE_ROWS && step->head_dim % (2 * LANES) == 0) {
        attend_tiles(step, item, kv_head, qkv, keys, values, to);
        return;
    }
#endif
    for (int64_t t = 0; t < item->tokens;) {
        const Item tile = tile_of(step, item, t);
        t += tile.tokens;
        NAME(attend_rows)(step, &tile, kv_head, qkv, keys, values, to,
                          t < item->tokens ? (Upcoming){0} : after);
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

void NAME(attend_region)(const AttentionStep *step, ELEMENT *qkv, void *keys, void *values,
                         const ELEMENT *cosines, const ELEMENT *sines, int64_t angle_stride,
                         ELEMENT *output, int tiled, Share share) {
    const NAME(Result) to = {output, tiled};
    for (Work work = parts_of(step->num_units, share); next_part(&work);)
        for (int64_t u = work.first; u < work.beyond; u++)
            NAME(enter)(step, step->units + u, qkv, keys, values, cosines, sines, angle_stride);
    const int64_t kv_heads = step->kv_heads, all = step->num_items * kv_heads;
    const Item *last = step->items + step->num_items - 1;
    for (Work work = items_of(all, share); next_item(&work);) {
        /* The last items of a prompt are the longest: they go first. */
        const int64_t i = work.first, next = i + share.threads;
        Upcoming after = {0};
        if (next < all) {
            const Item *item = last - next / kv_heads;
            after = upcoming_from(step, item, next % kv_heads, item->first_block);
        }
        NAME(attend_item)(step, last - i / kv_heads, i % kv_heads, qkv, keys, values, to, after);
    }
    if (!step->num_merges) return;
    for (Work work = parts_of(step->num_merges * step->heads, share); next_part(&work);)
        for (int64_t i = work.first; i < work.beyond; i++)
            NAME(merge)(step, step->merges + i / step->heads, i % step->heads, to);
}

/* qkv [T, heads + 2 kv heads, head_dim], rotated in place; keys and values as above; cosines and
 * sines [T, channels] with rows `angle_stride` apart, or NULL; output [T, heads, head_dim]. */
EXPORT void NAME(attend)(const AttentionStep *step, ELEMENT *qkv, void *keys, void *values,
                         const ELEMENT *cosines, const ELEMENT *sines, int64_t angle_stride,
                         ELEMENT *output) {
    Team *team = new_team();
#pragma omp parallel
    NAME(attend_region)(step, qkv, keys, values, cosines, sines, angle_stride, output, 0,
                        team_share(team));
}
