/* A stack of decoder layers in one parallel region. The same as the kernels one by one,
 * without their starts and ends (those were a tenth of a step with one sequence), and with what
 * lies between two of them still in the caches.
 *
 * A layer is two blocks, attention and feed-forward, and each of them is: a norm of the residual, a
 * linear layer, something, a linear layer, a norm; the result is added to the residual. Any norm
 * may be none. What a family has of its own is in its layers' declarations (``kernels/stack.py``).
 */
#include "regions.h"
#include "vectors.h"

#include <stddef.h>

#define CHUNK 512 /* rows at a time, but in attention */
#define APART 256 /* rows a thread: from here on each computes rows of its own */

typedef struct {
    Norm before, after;
    Linear first, second;
} Block;

typedef struct {
    Block attention, feed_forward;
    Norm queries, keys;    /* before they are rotated: of each head, or of all together */
    Activation activation; /* of the feed-forward block, if its first layer has none itself */
    int64_t parallel;      /* both blocks read the same residual */
    int64_t kind;          /* of its attention */
    void *cached_keys, *cached_values;
} Layer;

/* What layers whose attention is of one kind have in common in one step. */
typedef struct {
    const AttentionStep *step;
    const ELEMENT *cosines, *sines;
    int64_t angle_stride;
} Kind;

/* Of a chunk: hidden, wide (before a gated activation), inner, output, one after another for so
 * many threads as may work apart. Of all rows: qkv, attended, added; qkv is wide enough for a row
 * of the residual beside one of attended. What linear layers read is in tiles where they take them:
 * rows of hidden, inner, attended and qkv are a multiple of 16. `width`: the most of a row of
 * inner. */
typedef struct {
    ELEMENT *hidden, *qkv, *attended, *wide, *inner, *output, *added;
    int64_t threads, width;
} Workspace;

/* The rows that this thread computes, with the others of its team or, PERF: where there are many,
 * for itself: what it has written is then in its own cache, and it waits for nobody. */
typedef struct {
    int64_t first, beyond, size;
    Share share;
    ELEMENT *hidden, *wide, *inner, *output;
} Range;

static void any_linear(const Linear *layer, const ELEMENT *x, int x_tiled, ELEMENT *y, int y_tiled,
                       int64_t rows, const Linear *then, Share share) {
    if (then && then->codes) then = NULL; /* codes are not asked for beforehand */
    if (layer->codes) NAME(quantized_region)(layer, x, x_tiled, y, y_tiled, rows, share);
    else NAME(linear_region)(layer, x, x_tiled, y, y_tiled, rows, then, share);
}

static void gather(const int64_t *wanted, int64_t rows, const ELEMENT *from, int from_tiled,
                   ELEMENT *to, int to_tiled, int64_t size, Share share) {
    for (Work work = parts_of(rows, share); next_part(&work);)
        for (int64_t r = work.first; r < work.beyond; r++)
            for (int64_t i = 0; i < size; i += LANES)
                memcpy(to + place(to_tiled, r, i, size),
                       from + place(from_tiled, wanted[r], i, size), LANES * sizeof(ELEMENT));
}

static void any_attention(const Layer *layer, const Kind *kind, ELEMENT *qkv, ELEMENT *attended,
                          int tiled, Share share) {
    void *keys = layer->cached_keys, *values = layer->cached_values;
#if STEP == 1
    if (kind->step->narrow) {
        attend_region_f32_bf16(kind->step, qkv, keys, values, kind->cosines, kind->sines,
                               kind->angle_stride, attended, tiled, share);
        return;
    }
#endif
    NAME(attend_region)(kind->step, qkv, keys, values, kind->cosines, kind->sines,
                        kind->angle_stride, attended, tiled, share);
}

static Range range_of(int64_t rows, int64_t size, const Workspace *space, Share team) {
    Range range = {0, rows, size, team, space->hidden, space->wide, space->inner, space->output};
    if (team.threads == 1 || team.threads > space->threads || rows < APART * team.threads)
        return range;
    const int64_t tiles = (rows + 31) / 32;
    range.first = share_of(tiles, team.own, team) * 32;
    const int64_t at = rows <= CHUNK * team.threads ? range.first : team.own * CHUNK;
    range.beyond = least(rows, share_of(tiles, team.own + 1, team) * 32);
    range.share = (Share){.threads = 1};
    range.hidden += at * size;
    range.wide += at * 2 * space->width;
    range.inner += at * space->width;
    range.output += at * size;
    return range;
}

/* Before what one thread has computed is read by all. Those that share their rows have just met. */
static void meet_after(const Range *range, Share team) {
    if (range->share.threads == 1) meet(team);
}

/* `added` belongs to the residual, but is not there yet, if there is any. */
static void begin(const Block *block, ELEMENT *residual, const ELEMENT *added, int tiled,
                  ELEMENT *to, int to_tiled, int64_t rows, const Linear *then, const Range *range) {
    NAME(norm_region)(&block->before, added ? added : residual, added ? residual : NULL,
                      range->hidden, tiled, rows, range->size, range->size, range->share);
    any_linear(&block->first, range->hidden, tiled, to, to_tiled, rows, then, range->share);
}

static void end(const Block *block, const ELEMENT *x, int tiled, ELEMENT *to, int64_t rows,
                const Linear *then, const Range *range) {
    any_linear(&block->second, x, tiled, to, 0, rows, then, range->share);
    if (block->after.kind != NO_NORM)
        NAME(norm_region)(&block->after, to, NULL, to, 0, rows, range->size, range->size,
                          range->share);
}

/* From the residual to queries, keys and values; `added` as in `begin`. */
static void before_attention(const Layer *layer, ELEMENT *residual, const ELEMENT *added,
                             const Range *range, int tiled, const Workspace *space) {
    const Block *block = &layer->attention;
    const int64_t stride = block->first.outputs, queries = block->second.inputs;
    for (int64_t r = range->first; r < range->beyond; r += CHUNK) {
        const int64_t n = least(CHUNK, range->beyond - r), at = r * range->size;
        ELEMENT *qkv = space->qkv + r * stride;
        const Linear *then = r + CHUNK < range->beyond ? &block->first : &block->second;
        begin(block, residual + at, added ? added + at : NULL, tiled, qkv, 0, n, then, range);
        if (layer->queries.kind != NO_NORM)
            NAME(norm_parts_region)(&layer->queries, qkv, n, queries, stride, range->share);
        if (layer->keys.kind != NO_NORM)
            NAME(norm_parts_region)(&layer->keys, qkv + queries, n, (stride - queries) / 2, stride,
                                    range->share);
    }
}

static void feed_forward(const Layer *layer, ELEMENT *residual, const ELEMENT *added, ELEMENT *to,
                         int64_t rows, const Linear *then, const Range *range, int tiled) {
    const Block *block = &layer->feed_forward;
    const Activation *activation = &layer->activation;
    const int gated = activation->gated != 0;
    ELEMENT *first = gated ? range->wide : range->inner;
    begin(block, residual, added, tiled, first, !gated && tiled, rows, &block->second, range);
    if (activation->function)
        NAME(activate_region)(activation, first, range->inner, tiled, rows, block->second.inputs,
                              range->share);
    end(block, range->inner, tiled, to, rows, then, range);
}

/* From what attention found to what belongs to the residual next, space->added. `next`: the layer
 * after this one, or NULL. */
static void after_attention(const Layer *layer, const Layer *next, ELEMENT *residual,
                            const ELEMENT *attended, const Range *range, int tiled,
                            const Workspace *space) {
    const Linear *last = next ? &next->attention.first : NULL;
    for (int64_t r = range->first; r < range->beyond; r += CHUNK) {
        const int64_t n = least(CHUNK, range->beyond - r), size = range->size;
        const ELEMENT *x = attended + r * layer->attention.second.inputs;
        ELEMENT *sum = residual + r * size, *added = space->added + r * size;
        const Linear *then = r + CHUNK < range->beyond ? &layer->attention.second : last;
        end(&layer->attention, x, tiled, range->output, n, &layer->feed_forward.first, range);
        feed_forward(layer, sum, layer->parallel ? NULL : range->output, added, n, then, range,
                     tiled);
        if (layer->parallel) NAME(add_region)(range->output, sum, n * size, range->share);
    }
}

/* residual [T, size] is overwritten; only the rows `wanted` leave the last layer: y [rows, size],
 * after `norm`. */
EXPORT void NAME(decoder_layers)(const Layer *layers, int64_t count, const Kind *kinds,
                                 ELEMENT *residual, int64_t tokens, int64_t size,
                                 const int64_t *wanted, int64_t rows, const Norm *norm,
                                 const Workspace *space, ELEMENT *y) {
    Team *all = new_team();
#pragma omp parallel
    {
        const Share team = team_share(all);
        ELEMENT *sum = residual, *attended = space->attended;
        Range range = range_of(tokens, size, space, team);
        int tiled = NAME(linear_takes_tiles)(tokens);
        for (int64_t l = 0; l < count; l++) {
            const Layer *layer = layers + l;
            before_attention(layer, sum, l ? space->added : NULL, &range, tiled, space);
            meet_after(&range, team);
            any_attention(layer, kinds + layer->kind, space->qkv, attended, tiled, team);
            if (l == count - 1) {
                const int64_t queries = layer->attention.second.inputs;
                const int was_tiled = tiled;
                ELEMENT *kept = space->qkv + (rows + 15) / 16 * 16 * queries;
                tiled = NAME(linear_takes_tiles)(rows);
                gather(wanted, rows, attended, was_tiled, space->qkv, tiled, queries, team);
                gather(wanted, rows, sum, 0, kept, 0, size, team);
                attended = space->qkv;
                sum = kept;
                range = range_of(rows, size, space, team);
            }
            const Layer *next = l + 1 < count ? layer + 1 : NULL;
            after_attention(layer, next, sum, attended, &range, tiled, space);
        }
        meet_after(&range, team);
        NAME(norm_region)(norm, space->added, sum, y, 0, rows, size, size, team);
    }
}
