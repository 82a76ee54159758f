/* A stack of decoder layers in one parallel region, in bfloat16: attention and a gated SiLU block,
 * each after an RMS norm, each added to the residual (Llama and its kin). The same as the kernels one
 * by one, without their starts and ends: those were a tenth of a step with one sequence.
 */
#include "regions.h"
#include "vectors.h"

#include <stddef.h>

typedef struct {
    const float *input_norm, *inner_norm;
    Linear qkv, output, gate_up, down;
    const AttentionStep *step; /* these five change from step to step */
    bf16 *keys, *values;
    const bf16 *cosines, *sines;
    int64_t angle_stride;
    float epsilon;
} Layer;

/* All [T, …]: qkv and gate_up as wide as their layers, hidden as wide as the widest input of one. */
typedef struct {
    bf16 *hidden, *qkv, *attended, *gate_up, *added, *scratch;
} Workspace;

static void gather(const int64_t *wanted, int64_t rows, const bf16 *from, bf16 *to, int64_t size) {
#pragma omp for schedule(static)
    for (int64_t r = 0; r < rows; r++)
        memcpy(to + r * size, from + wanted[r] * size, size * sizeof(bf16));
}

/* residual [T, size] is overwritten; only the rows `wanted` (all, where NULL) leave the last layer:
 * y [rows, size], after `norm`. */
EXPORT void decoder_layers(const Layer *layers, int64_t count, bf16 *residual, int64_t tokens,
                           int64_t size, const int64_t *wanted, int64_t rows, const float *norm,
                           const Workspace *space, bf16 *y) {
#pragma omp parallel
    {
        bf16 *sum = residual;
        int64_t n = tokens;
        for (int64_t l = 0; l < count; l++) {
            const Layer *layer = layers + l;
            const int64_t queries = layer->output.inputs, width = layer->down.inputs;
            bf16 *attended = space->attended;
            rms_norm_region_bf16(l ? space->added : sum, l ? sum : NULL, layer->input_norm,
                                 space->hidden, n, size, size, layer->epsilon);
            linear_region(&layer->qkv, space->hidden, space->qkv, 0, space->scratch, n);
            attend_region_bf16(layer->step, space->qkv, layer->keys, layer->values, layer->cosines,
                               layer->sines, layer->angle_stride, attended);
            if (l == count - 1 && wanted) {
                gather(wanted, rows, attended, space->hidden, queries);
                gather(wanted, rows, sum, space->qkv, size);
                attended = space->hidden;
                sum = space->qkv;
                n = rows;
            }
            linear_region(&layer->output, attended, space->added, 0, space->scratch, n);
            rms_norm_region_bf16(space->added, sum, layer->inner_norm, space->hidden, n, size, size,
                                 layer->epsilon);
            linear_region(&layer->gate_up, space->hidden, space->gate_up, 0, space->scratch, n);
            silu_and_multiply_region_bf16(space->gate_up, space->hidden, n, width);
            linear_region(&layer->down, space->hidden, space->added, 0, space->scratch, n);
        }
        rms_norm_region_bf16(space->added, sum, norm, y, n, size, size, layers->epsilon);
    }
}
