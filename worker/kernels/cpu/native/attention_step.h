/* What one step of attention reads and writes: worked out once a step, the same in every layer with
 * one sliding window. All but two numbers are int64. */
#ifndef MILLRACE_ATTENTION_STEP_H
#define MILLRACE_ATTENTION_STEP_H

#include <stdint.h>

#define BLOCK 16           /* tokens */
#define ATTENTION_ROWS 32  /* queries at a time */
#define CUT_BLOCKS 64      /* a sequence that decodes is cut at multiples of so many */

/* Consecutive tokens of a sequence in one block: rotated and stored by one thread. */
typedef struct {
    int64_t row, tokens, block, offset;
} StoreUnit;

/* Queries of some consecutive tokens, and of some heads of each KV head, against some blocks. */
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
    float scale, cap; /* cap: 0 without one */
} AttentionStep;

#endif
