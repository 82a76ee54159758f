/* A stack of decoder layers in one parallel region, in bfloat16: attention and a gated SiLU block,
 * each after an RMS norm, each added to the residual (Llama and its kin). The same as the kernels one
 * by one, without their starts and ends (those were a tenth of a step with one sequence), and with
 * what lies between two of them still in the caches.
 */
#include "regions.h"
#include "vectors.h"

#include <stddef.h>

#define CHUNK 512 /* rows at a time, but in attention */

typedef struct {
    const float *input_norm, *inner_norm;
    Linear qkv, output, gate_up, down;
    const AttentionStep *step; /* these five change from step to step */
    bf16 *keys, *values;
    const bf16 *cosines, *sines;
    int64_t angle_stride;
    float epsilon;
} Layer;

/* Of a chunk: hidden, gated, output, one after another for so many threads as may work apart. Of all
 * rows: qkv, attended, added; qkv is wide enough for a row of the residual beside one of attended.
 * What linear layers read is in tiles where they take them: rows of hidden, gated, attended and qkv
 * are a multiple of 16. */
typedef struct {
    bf16 *hidden, *qkv, *attended, *gated, *output, *added;
    int64_t threads;
} Workspace;

/* The rows that this thread computes, with the others of its team or, PERF: where there are many, for
 * itself: what it has written is then in its own cache, and it waits for nobody. */
typedef struct {
    int64_t first, beyond;
    Share share;
    bf16 *hidden, *gated, *output;
} Range;

static void gather(const int64_t *wanted, int64_t rows, const bf16 *from, int from_tiled, bf16 *to,
                   int to_tiled, int64_t size) {
#pragma omp for schedule(static)
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < size; i += LANES)
            memcpy(to + place(to_tiled, r, i, size), from + place(from_tiled, wanted[r], i, size),
                   LANES * sizeof(bf16));
}

static Range range_of(const Layer *layer, int64_t rows, int64_t size, const Workspace *space) {
    const Share team = team_share();
    Range range = {0, rows, team, space->hidden, space->gated, space->output};
    if (team.threads == 1 || team.threads > space->threads || rows < CHUNK * team.threads)
        return range;
    const int64_t tiles = (rows + 31) / 32;
    range.first = share_of(tiles, team.own, team) * 32;
    range.beyond = least(rows, share_of(tiles, team.own + 1, team) * 32);
    range.share = (Share){1, 0};
    range.hidden += team.own * CHUNK * size;
    range.gated += team.own * CHUNK * layer->down.inputs;
    range.output += team.own * CHUNK * size;
    return range;
}

/* From the residual to queries, keys and values; `added` belongs to the residual, but is not there
 * yet, if there is any. */
static void before_attention(const Layer *layer, bf16 *residual, const bf16 *added,
                             const Range *range, int tiled, int64_t size, const Workspace *space) {
    for (int64_t r = range->first; r < range->beyond; r += CHUNK) {
        int64_t n = least(CHUNK, range->beyond - r);
        bf16 *sum = residual + r * size;
        rms_norm_region_bf16(added ? added + r * size : sum, added ? sum : NULL, layer->input_norm,
                             range->hidden, tiled, n, size, size, layer->epsilon, range->share);
        linear_region(&layer->qkv, range->hidden, tiled, space->qkv + r * layer->qkv.outputs, 0, n,
                      range->share);
    }
}

/* From what attention found to what belongs to the residual next, space->added. */
static void after_attention(const Layer *layer, bf16 *residual, const bf16 *attended,
                            const Range *range, int tiled, int64_t size, const Workspace *space) {
    for (int64_t r = range->first; r < range->beyond; r += CHUNK) {
        int64_t n = least(CHUNK, range->beyond - r);
        linear_region(&layer->output, attended + r * layer->output.inputs, tiled, range->output, 0,
                      n, range->share);
        rms_norm_region_bf16(range->output, residual + r * size, layer->inner_norm, range->hidden,
                             tiled, n, size, size, layer->epsilon, range->share);
        linear_region(&layer->gate_up, range->hidden, tiled, range->gated, tiled, n, range->share);
        linear_region(&layer->down, range->gated, tiled, space->added + r * size, 0, n,
                      range->share);
    }
}

/* residual [T, size] is overwritten; only the rows `wanted` (all, where NULL) leave the last layer:
 * y [rows, size], after `norm`. */
EXPORT void decoder_layers(const Layer *layers, int64_t count, bf16 *residual, int64_t tokens,
                           int64_t size, const int64_t *wanted, int64_t rows, const float *norm,
                           const Workspace *space, bf16 *y) {
#pragma omp parallel
    {
        bf16 *sum = residual, *attended = space->attended;
        Range range = range_of(layers, tokens, size, space);
        int tiled = linear_takes_tiles(tokens);
        for (int64_t l = 0; l < count; l++) {
            const Layer *layer = layers + l;
            before_attention(layer, sum, l ? space->added : NULL, &range, tiled, size, space);
#pragma omp barrier
            attend_region_bf16(layer->step, space->qkv, layer->keys, layer->values, layer->cosines,
                               layer->sines, layer->angle_stride, attended, tiled);
            if (l == count - 1 && wanted) {
                const int64_t queries = layer->output.inputs;
                const int was_tiled = tiled;
                bf16 *kept = space->qkv + (rows + 15) / 16 * 16 * queries;
                tiled = linear_takes_tiles(rows);
                gather(wanted, rows, attended, was_tiled, space->qkv, tiled, queries);
                gather(wanted, rows, sum, 0, kept, 0, size);
                attended = space->qkv;
                sum = kept;
                range = range_of(layers, rows, size, space);
            }
            after_attention(layer, sum, attended, &range, tiled, size, space);
        }
#pragma omp barrier
        rms_norm_region_bf16(space->added, sum, norm, y, 0, wanted ? rows : tokens, size, size,
                             layers->epsilon, team_share());
    }
}
