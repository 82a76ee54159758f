/* From a step's sequences to the units, items and merges of its attention. */
#include "attention_step.h"
#include "vectors.h"

#include <stddef.h>

static void add_units(AttentionStep *step, const int64_t *slots, int64_t row, int64_t tokens) {
    while (tokens) {
        int64_t offset = slots[row] % BLOCK, some = least(tokens, BLOCK - offset);
        if (step->units)
            step->units[step->num_units] = (StoreUnit){row, some, slots[row] / BLOCK, offset};
        step->num_units++;
        row += some;
        tokens -= some;
    }
}

static void add_item(AttentionStep *step, Item item) {
    if (step->items) step->items[step->num_items] = item;
    step->num_items++;
}

/* One token: its keys are cut at fixed positions. */
static void add_decoding(AttentionStep *step, Item item, int64_t *parts) {
    int64_t last = item.last_block, cuts = 0;
    for (int64_t b = item.first_block; b < last; b = item.last_block, cuts++) {
        item.first_block = b;
        item.last_block = least(last, (b / CUT_BLOCKS + 1) * CUT_BLOCKS);
        item.part = item.last_block == last && !cuts ? -1 : *parts + cuts;
        add_item(step, item);
    }
    if (cuts < 2) return;
    if (item.head == 0) {
        if (step->merges) step->merges[step->num_merges] = (Merge){item.row, *parts, cuts};
        step->num_merges++;
    }
    if (item.head + item.heads == step->heads / step->kv_heads) *parts += cuts;
}

/* Counts, and where the arrays of `step` are given fills in, what S sequences need; returns the
 * parts. counts [S]: tokens of this step; lengths [S]: tokens after it; slots [T]. */
EXPORT int64_t attention_plan(AttentionStep *step, int64_t sequences, const int64_t *counts,
                              const int64_t *lengths, const int64_t *slots) {
    const int64_t group = step->heads / step->kv_heads;
    const int64_t pieces = (group + ATTENTION_ROWS - 1) / ATTENTION_ROWS;
    const int64_t heads = (group + pieces - 1) / pieces;
    const int64_t most = ATTENTION_ROWS / heads * (MOST_DIM / step->head_dim);
    int64_t row = 0, parts = 0;
    step->num_units = step->num_items = step->num_merges = 0;
    for (int64_t s = 0; s < sequences; row += counts[s], s++) {
        add_units(step, slots, row, counts[s]);
        for (int64_t t = 0; t < counts[s]; t += most)
            for (int64_t head = 0; head < group; head += heads) {
                int64_t tokens = least(most, counts[s] - t);
                int64_t position = lengths[s] - counts[s] + t;
                Item item = {.sequence = s,
                             .row = row + t,
                             .tokens = tokens,
                             .position = position,
                             .head = head,
                             .heads = least(heads, group - head),
                             .first_block = first_seen(step, position),
                             .last_block = (position + tokens - 1) / BLOCK + 1,
                             .part = -1};
                if (counts[s] == 1)
                    add_decoding(step, item, &parts);
                else
                    add_item(step, item);
            }
    }
    return parts;
}
