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

/* Of a chunk: hidden, gated, output. Of all rows: qkv, attended, added; qkv is wide enough for a row
 * of the residual beside one of attended. What linear layers read is in tiles where they take them:
 * rows of hidden, gated, attended and qkv are a multiple of 16. */
typedef struct {
    bf16 *hidden, *qkv, *attended, *gated, *output, *added;
} Workspace;

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static void gather(const int64_t *wanted, int64_t rows, const bf16 *from, int from_tiled, bf16 *to,
                   int to_tiled, int64_t size) {
#pragma omp for schedule(static)
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < size; i += LANES)
            memcpy(to + place(to_tiled, r, i, size), from + place(from_tiled, wanted[r], i, size),
                   LANES * sizeof(bf16));
}

/* From the residual to queries, keys and values; `added` belongs to the residual, but is not there
 * yet, if there is any. */
static void before_attention(const Layer *layer, bf16 *residual, const bf16 *added, int64_t rows,
                             int64_t size, const Workspace *space) {
    const int tiled = linear_takes_tiles(rows);
    for (int64_t r = 0; r < rows; r += CHUNK) {
        int64_t n = least(CHUNK, rows - r);
        bf16 *sum = residual + r * size;
        rms_norm_region_bf16(added ? added + r * size : sum, added ? sum : NULL, layer->input_norm,
                             space->hidden, tiled, n, size, size, layer->epsilon);
        linear_region(&layer->qkv, space->hidden, tiled, space->qkv + r * layer->qkv.outputs, 0, n);
    }
}

/* From what attention found to what belongs to the residual next, space->added. */
static void after_attention(const Layer *layer, bf16 *residual, const bf16 *attended, int64_t rows,
                            int64_t size, const Workspace *space) {
    const int tiled = linear_takes_tiles(rows);
    for (int64_t r = 0; r < rows; r += CHUNK) {
        int64_t n = least(CHUNK, rows - r);
        linear_region(&layer->output, attended + r * layer->output.inputs, tiled, space->output, 0, n);
        rms_norm_region_bf16(space->output, residual + r * size, layer->inner_norm, space->hidden,
                             tiled, n, size, size, layer->epsilon);
        linear_region(&layer->gate_up, space->hidden, tiled, space->gated, tiled, n);
        linear_region(&layer->down, space->gated, tiled, space->added + r * size, 0, n);
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
        int64_t n = tokens;
        for (int64_t l = 0; l < count; l++) {
            const Layer *layer = layers + l;
            before_attention(layer, sum, l ? space->added : NULL, n, size, space);
            attend_region_bf16(layer->step, space->qkv, layer->keys, layer->values, layer->cosines,
                               layer->sines, layer->angle_stride, attended, linear_takes_tiles(n));
            if (l == count - 1 && wanted) {
                const int64_t queries = layer->output.inputs;
                bf16 *kept = space->qkv + (rows + 15) / 16 * 16 * queries;
                gather(wanted, rows, attended, linear_takes_tiles(n), space->qkv,
                       linear_takes_tiles(rows), queries);
                gather(wanted, rows, sum, 0, kept, 0, size);
                attended = space->qkv;
                sum = kept;
                n = rows;
            }
            after_attention(layer, sum, attended, n, size, space);
        }
        rms_norm_region_bf16(space->added, sum, norm, y, 0, n, size, size, layers->epsilon);
    }
}
