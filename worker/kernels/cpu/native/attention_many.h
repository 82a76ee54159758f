/* Attention of many queries in bfloat16, where there is AMX: an item's tiles of queries take turns
 * at the same keys and values. Products by AMX, weights by the vector units.
 *
 * The maximum of a row is raised only where a score is far above it: weights may then be above 1,
 * and what has been summed is seldom scaled anew (as FlashAttention-4 has it).
 *
 * PERF: products and weights one after the other, not interleaved: near instructions of AMX this
 * processor adds and multiplies floats at half its rate.
 */

#define LEEWAY 8.0f /* powers of two that a weight may reach */
#define WEIGHT_UNIT 256.0f
#define MOST_TILES (MOST_DIM / (2 * LANES))

/* Queries of an item, and what they have seen. By row: the highest score, in powers of two, as far
 * as it has been raised; the score from which on it is; what two_powers wants added; totals of
 * weights. */
typedef struct {
    Item item;
    TileProduct product;
    int64_t rows;
    int begun;
    float most[ROWS], limit[ROWS], offset[ROWS];
    f32x16 totals[ROWS];
} QueryTile;

/* What all rows share. */
typedef struct {
    const AttentionStep *step;
    float power, factor; /* powers of two in a score of 1; what two_powers makes of that */
} Softmax;

/* --- weights ---------------------------------------------------------------------------------- */

/* A row's new maximum; its sums and total are made worth what they are under it. */
static void raise_row(const Softmax *softmax, QueryTile *tile, int64_t r, float highest) {
    const float most = highest * softmax->power;
    const int64_t dim = tile->product.dim;
    if (tile->begun) {
        const float worth = exp16(splat((tile->most[r] - most) * 0.693147181f))[0];
        float *sums = tile->product.sums + r * dim;
        for (int64_t d = 0; d < dim; d += LANES) store_f32(sums + d, load_f32(sums + d) * worth);
        tile->totals[r] *= worth;
    }
    tile->most[r] = most;
    tile->limit[r] = highest + LEEWAY / softmax->power;
    tile->offset[r] = (127.0f - most) * WEIGHT_UNIT;
}

INLINE int any_above(f32x16 x, float limit) {
    return _mm512_cmp_ps_mask((__m512)x, _mm512_set1_ps(limit), _CMP_GT_OQ) != 0;
}

/* 1 + f - 2^f in units of 1/256, f from 0 on in steps of 1/64. */
static const uint8_t BENT[64] __attribute__((aligned(64))) = {
    0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 14, 15, 16, 16, 17, 18, 18, 19,
    19, 20, 20, 21, 21, 21, 21, 22, 22, 22, 22, 22, 22, 22, 22, 22, 22, 21, 21, 21, 20, 20,
    20, 19, 18, 18, 17, 16, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 5, 4, 2, 1};

/* 2 to the power of x in bfloat16, to 9e-3 (4e-3 is what rounding costs), of two times 16 numbers
 * (x + 127) 256: as whole numbers of 16 bits those are the exponent and 8 bits of a mantissa that
 * has to be bent a little. What they are all too large by, 1.5e-3, is in their total too. Pairs of
 * the first and of the second 16 take turns by two, as packing leaves them: see SEEN_PAIR. Below
 * -127, for -inf and for a NaN, 0. PERF: 6 operations on floats instead of 15. */
INLINE __m512i two_powers(f32x16 left, f32x16 right) {
    const __m512i bent = _mm512_load_si512(BENT);
    __m512i bits = _mm512_packus_epi32(_mm512_cvtps_epi32((__m512)left),
                                       _mm512_cvtps_epi32((__m512)right));
    const __m512i step = _mm512_srli_epi16(bits, 2);
    __m512i less = _mm512_maskz_permutexvar_epi8(0x5555555555555555, step, bent);
    return _mm512_avg_epu16(_mm512_sub_epi16(bits, less), _mm512_setzero_si512());
}

/* A row's scores to weights. */
INLINE void weigh_row(const Softmax *softmax, QueryTile *tile, int64_t r, const int64_t pairs) {
    float *scores = tile->product.scores + r / TILE * HALF_SCORES + r % TILE * TILE;
    f32x16 most = max16(load_f32(scores), load_f32(scores + SQUARE));
    for (int64_t p = 1; p < pairs; p++) {
        const float *two = scores + 2 * p * SQUARE;
        most = max16(max16(load_f32(two), load_f32(two + SQUARE)), most);
    }
    if (any_above(most, tile->limit[r])) raise_row(softmax, tile, r, max_of(most));
    const f32x16 factor = splat(softmax->factor), offset = splat(tile->offset[r]);
    const __m512bh ones = (__m512bh)_mm512_set1_epi16(0x3f80);
    __m512 total = (__m512)tile->totals[r];
    for (int64_t p = 0; p < pairs; p++) {
        float *two = scores + 2 * p * SQUARE;
        const __m512i weights = two_powers(load_f32(two) * factor + offset,
                                           load_f32(two + SQUARE) * factor + offset);
        total = _mm512_dpbf16_ps(total, (__m512bh)weights, ones);
        _mm512_storeu_si512(two, weights);
    }
    tile->totals[r] = (f32x16)total;
}

/* Caps and masks a row's scores, those of a missing block too. */
static void show_row(const AttentionStep *step, const QueryTile *tile, int64_t r, int64_t block,
                     int64_t blocks) {
    int64_t beyond = tile->item.position + r / tile->item.heads + 1 - block * BLOCK;
    const int64_t first = step->window ? beyond - step->window : 0;
    beyond = least(beyond, blocks * BLOCK);
    float *scores = tile->product.scores + r / TILE * HALF_SCORES + r % TILE * TILE;
    for (int64_t b = 0; b < (blocks + 1) / 2 * 2; b++, scores += SQUARE)
        store_f32(scores,
                  seen_score_bf16(step, load_f32(scores), b * BLOCK, first, beyond));
}

/* Scores of some blocks from `block` on to weights. */
static void weigh_tile(const Softmax *softmax, QueryTile *tile, int64_t block, int64_t blocks) {
    const AttentionStep *step = softmax->step;
    const Item *item = &tile->item;
    const int64_t pairs = (blocks + 1) / 2, last = item->position + item->tokens;
    const int plain = (block + blocks) * BLOCK <= item->position + 1 && blocks % 2 == 0 &&
                      step->cap <= 0 && (!step->window || block * BLOCK >= last - step->window);
    for (int64_t r = 0; r < tile->rows; r++) {
        if (!plain) show_row(step, tile, r, block, blocks);
        if (pairs == TILE_KEYS / (2 * BLOCK)) weigh_row(softmax, tile, r, TILE_KEYS / (2 * BLOCK));
        else weigh_row(softmax, tile, r, pairs);
    }
}

/* --- an item ---------------------------------------------------------------------------------- */

/* Where pair q of a block's values is among those of two blocks: as two_powers leaves weights. */
#define SEEN_PAIR(second, q) ((q) / 2 * 4 + (second) * 2 + (q) % 2)

/* The keys and values of a group of blocks: where they are, and copied, so that a tile spans two,
 * whose pairs take turns by two. */
typedef struct {
    const bf16 *keys[TILE_KEYS / BLOCK];
    bf16 values[TILE_KEYS * MOST_DIM] __attribute__((aligned(64)));
} Seen;

/* Where two pairs of a block's values belong, from an even one on. */
INLINE bf16 *pairs_of(Seen *seen, int64_t block, int64_t pair, int64_t dim) {
    return seen->values + (block / 2 * BLOCK + SEEN_PAIR(block % 2, pair)) * 2 * dim;
}

/* Of the first `blocks` of a table; in place of a missing block's values zeros. The `next` blocks
 * behind them are on their way meanwhile. */
static void gather_seen(Seen *seen, const AttentionStep *step, const int64_t *table,
                        int64_t kv_head, int64_t blocks, int64_t next, const bf16 *keys,
                        const bf16 *values) {
    const int64_t dim = step->head_dim, elements = BLOCK * dim;
    for (int64_t b = blocks; b < blocks + next; b++) {
        const int64_t place = (table[b] * step->kv_heads + kv_head) * elements;
        prefetch_bf16(keys + place, elements);
        prefetch_bf16(values + place, elements);
    }
    for (int64_t b = 0; b < blocks; b++) {
        const int64_t place = (table[b] * step->kv_heads + kv_head) * elements;
        seen->keys[b] = keys + place;
        for (int64_t q = 0; q < BLOCK / 2; q += 2)
            memcpy(pairs_of(seen, b, q, dim), values + place + q * 2 * dim, 4 * dim * sizeof(bf16));
    }
    for (int64_t q = 0; blocks % 2 && q < BLOCK / 2; q += 2)
        memset(pairs_of(seen, blocks, q, dim), 0, 4 * dim * sizeof(bf16));
}

static void begin_tile(QueryTile *tile, const AttentionStep *step, const bf16 *qkv, int64_t head,
                       bf16 *queries, float *sums, float *scores) {
    const Item *item = &tile->item;
    const int64_t dim = step->head_dim, width = (step->heads + 2 * step->kv_heads) * dim;
    tile->rows = item->tokens * item->heads;
    tile->begun = 0;
    tile->product = (TileProduct){queries, sums, scores, dim, tile->rows > TILE};
    for (int64_t t = 0; t < item->tokens; t++)
        memcpy(queries + t * item->heads * dim, qkv + (item->row + t) * width + head * dim,
               item->heads * dim * sizeof(bf16));
    for (int64_t r = 0; r < tile->rows; r++) {
        tile->most[r] = tile->limit[r] = FLOOR;
        tile->offset[r] = 0;
        tile->totals[r] = splat(0);
    }
}

static void mix_tile(QueryTile *tile, const Seen *seen, int64_t block) {
    const int64_t blocks = least(TILE_KEYS / BLOCK, tile->item.last_block - block);
    tile_mix(&tile->product, seen->values, (blocks + 1) / 2, !tile->begun);
    tile->begun = 1;
}

/* All tiles against the blocks from `block` on. PERF: a tile's values are mixed when the next one
 * has its scores: what has just been stored cannot be loaded by AMX at once. */
static void see(const Softmax *softmax, QueryTile *tiles, int64_t count, const Seen *seen,
                int64_t block) {
    QueryTile *weighed = NULL;
    for (QueryTile *tile = tiles; tile < tiles + count; tile++) {
        const int64_t blocks = least(TILE_KEYS / BLOCK, tile->item.last_block - block);
        if (blocks <= 0 || block + TILE_KEYS / BLOCK <= tile->item.first_block) continue;
        tile_scores(&tile->product, seen->keys, blocks);
        if (weighed) mix_tile(weighed, seen, block);
        weigh_tile(softmax, tile, block, blocks);
        weighed = tile;
    }
    if (weighed) mix_tile(weighed, seen, block);
}

static void end_tile(const QueryTile *tile, const AttentionStep *step, int64_t head,
                     Result_bf16 to) {
    for (int64_t r = 0; r < tile->rows; r++)
        put_row_bf16(step, &tile->item, r, head, tile->product.sums + r * step->head_dim,
                     tile->most[r] * 0.693147181f, sum_of(tile->totals[r]), to);
}

/* As attend_rows, for any number of tiles; head_dim is a multiple of 32. */
static void attend_tiles(const AttentionStep *step, const Item *item, int64_t kv_head,
                         const bf16 *qkv, const bf16 *keys, const bf16 *values, Result_bf16 to) {
    bf16 queries[ROWS * MOST_DIM] __attribute__((aligned(64)));
    float sums[ROWS * MOST_DIM] __attribute__((aligned(64)));
    float scores[2][ROWS * TILE_KEYS] __attribute__((aligned(64)));
    Seen seen;
    QueryTile tiles[MOST_TILES];
    const int64_t group = step->heads / step->kv_heads, head = kv_head * group + item->head;
    const int64_t *table = step->tables + item->sequence * step->table_width;
    const float power = step->scale * 1.44269504f;
    const Softmax softmax = {step, power, power * WEIGHT_UNIT};
    int64_t count = 0, elements = ROWS * step->head_dim;
    for (int64_t t = 0; t < item->tokens; t += tiles[count++].item.tokens) {
        tiles[count].item = tile_of(step, item, t);
        begin_tile(tiles + count, step, qkv, head, queries + count * elements,
                   sums + count * elements, scores[count % 2]);
    }
    tiles_begin(tiles->rows);
    for (int64_t b = item->first_block; b < item->last_block; b += TILE_KEYS / BLOCK) {
        const int64_t blocks = least(TILE_KEYS / BLOCK, item->last_block - b);
        /* PERF: what decodes reads keys and values from memory, prompts from the L2 cache. */
        const int64_t next = count > 1 ? 0 : least(TILE_KEYS / BLOCK, item->last_block - b - blocks);
        gather_seen(&seen, step, table + b, kv_head, blocks, next, keys, values);
        see(&softmax, tiles, count, &seen, b);
    }
    _tile_release();
    for (int64_t t = 0; t < count; t++) end_tile(tiles + t, step, head, to);
}
