/* The kernels as parts of a larger computation inside one parallel region. Each is called by all
 * threads of a team, and ends when all of it is done, or (but attention) by one thread alone.
 * What each computes stands beside its exported twin.
 */
#ifndef MILLRACE_REGIONS_H
#define MILLRACE_REGIONS_H

#include "attention_step.h"
#include "team.h"

#include <stddef.h>
#include <stdint.h>

#define PANEL 32 /* outputs whose weights are read together */

/* What becomes of a linear layer's sums: bfloat16, float32 as they are, or silu(gate) * up. */
enum { NARROW, WIDE, GATED };

/* What codes stand for: integers of 8 bits, float8 (e4m3), or 4 bits that choose one of 16 levels. */
enum { INTEGER, FLOAT8, NIBBLE };

/* Weights in few bits, in panels as codes.h reads them, and what multiplies each `group` of inputs of
 * an output, and what is added to it then, or NULL: [panel][group][32], as the 16 levels in float32. */
typedef struct {
    const uint8_t *codes;
    const float *scales, *offsets, *levels;
    int64_t coding, group;
} Codes;

/* How weights are kept: pairs of bfloat16 beside such numbers; beside float32, float16 or float32. */
enum { PAIRS, HALVES, SINGLES };

/* A linear layer: weights as linear_pack makes them, or codes, and its bias or NULL. */
typedef struct {
    const void *weights, *bias;
    int64_t outputs, inputs, kind, form;
    const Codes *codes;
} Linear;

/* A norm of `size` numbers, with weights (and a layer norm's biases) in float32: RMS norm (Zhang and
 * Sennrich 2019), layer norm (Ba et al. 2016), or none, which leaves rows as they are. */
enum { NO_NORM, RMS_NORM, LAYER_NORM };

typedef struct {
    const float *weight, *bias;
    int64_t size, kind;
    float epsilon;
} Norm;

/* What becomes of each number between two linear layers; gated: of the first half of a row, which
 * then multiplies the other. */
typedef struct {
    int64_t function, gated;
} Activation;

/* Where a row's column is among rows of some width: row after row, or in tiles of 16 rows and 32
 * columns, one after another, as AMX reads them (widths are multiples of 32). */
static inline int64_t place(int tiled, int64_t row, int64_t column, int64_t width) {
    if (!tiled) return row * width + column;
    return row / 16 * 16 * width + column / 32 * 512 + row % 16 * 32 + column % 32;
}

#define DECLARE_ATTENTION(ELEMENT, type)                                                           \
    void attend_region_##type(const AttentionStep *step, ELEMENT *qkv, void *keys, void *values,   \
                              const ELEMENT *cosines, const ELEMENT *sines, int64_t angle_stride,  \
                              ELEMENT *output, int tiled, Share share);

/* Of linear_region, `then`: the layer for as many rows whose weights are wanted next, or NULL. */
#define DECLARE(ELEMENT, type)                                                                     \
    int linear_takes_tiles_##type(int64_t rows);                                                   \
    void linear_region_##type(const Linear *layer, const ELEMENT *x, int x_tiled, void *y,         \
                              int y_tiled, int64_t rows, const Linear *then, Share share);         \
    void quantized_region_##type(const Linear *layer, const ELEMENT *x, int x_tiled, void *y,      \
                                 int y_tiled, int64_t rows, Share share);                          \
    DECLARE_ATTENTION(ELEMENT, type)                                                               \
    void norm_region_##type(const Norm *norm, const ELEMENT *x, ELEMENT *residual, ELEMENT *y,      \
                            int tiled, int64_t rows, int64_t size, int64_t stride, Share share);   \
    void norm_parts_region_##type(const Norm *norm, ELEMENT *x, int64_t rows, int64_t width,        \
                                  int64_t stride, Share share);                                    \
    void activate_region_##type(const Activation *activation, const ELEMENT *x, ELEMENT *y,         \
                                int tiled, int64_t rows, int64_t width, Share share);              \
    void add_region_##type(const ELEMENT *x, ELEMENT *residual, int64_t elements, Share share);

DECLARE(uint16_t, bf16)
DECLARE(float, f32)
DECLARE_ATTENTION(float, f32_bf16)

#endif
