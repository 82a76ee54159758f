/* What one step of attention reads and writes: worked out once a step, the same in every layer with
 * one sliding window. All but two numbers are int64. */
#ifndef MILLRACE_ATTENTION_STEP_H
#define MILLRACE_ATTENTION_STEP_H

#include <stdint.h>

#define BLOCK 16           /* tokens */
#define ATTENTION_ROWS 32  /* queries at a time: a tile */
#define MOST_DIM 512
#define CUT_BLOCKS 64      /* a sequence that decodes is cut at multiples of so many */

/* Consecutive tokens of a sequence in one block: rotated and stored by one thread. */
typedef struct {
    int64_t row, tokens, block, offset;
} StoreUnit;

/* Queries of some consecutive tokens, and of some heads of each KV head, against some blocks: as
 * many tiles of queries as sums of one with the largest heads would take. */
typedef struct {
    int64_t sequence, row, tokens, position; /* position: of the first token in its sequence */
    int64_t head, heads;                     /* of those that share a KV head */
    int64_t first_block, last_block;
    int64_t part; /* where sums that are to be merged go; -1: nothing is */
} Item;

/* A token whose keys were cut into several items. */
typedef struct {
    int64_t row, part, parts;
} Merge;

typedef struct {
    int64_t heads, kv_heads, head_dim, channels; /* channels: of a head that are rotated */
    int64_t window;                              /* latest tokens that are seen; 0: all */
    const int64_t *tables;
    int64_t table_width;
    StoreUnit *units;
    int64_t num_units;
    Item *items;
    int64_t num_items;
    Merge *merges;
    int64_t num_merges;
    float *parts; /* [parts, heads, head_dim + 16]: sums, then their maximum and total */
    float scale, cap;       /* cap: 0 without one */
    int64_t narrow; /* of float32: keys and values are kept in bfloat16 */
} AttentionStep;

/* The first block with a token that the token at `position` sees. */
static inline int64_t first_seen(const AttentionStep *step, int64_t position) {
    int64_t hidden = step->window ? position + 1 - step->window : 0;
    return hidden > 0 ? hidden / BLOCK : 0;
}

/* Blocks of a KV head that are read later; none: {0}. */
typedef struct {
    const int64_t *table;
    int64_t blocks, kv_head;
} Upcoming;

/* Those of an item from `block` on. */
static inline Upcoming upcoming_from(const AttentionStep *step, const Item *item, int64_t kv_head,
                                     int64_t block) {
    const int64_t *table = step->tables + item->sequence * step->table_width;
    return (Upcoming){table + block, item->last_block - block, kv_head};
}

/* The tile of an item that begins with its token number `first`. */
static inline Item tile_of(const AttentionStep *step, const Item *item, int64_t first) {
    const int64_t most = ATTENTION_ROWS / item->heads, left = item->tokens - first;
    Item tile = *item;
    tile.row += first;
    tile.position += first;
    tile.tokens = left < most ? left : most;
    const int64_t seen = first_seen(step, tile.position);
    const int64_t beyond = (tile.position + tile.tokens - 1) / BLOCK + 1;
    if (seen > tile.first_block) tile.first_block = seen;
    if (beyond < tile.last_block) tile.last_block = beyond;
    return tile;
}

#endif
