/* The kernels as parts of a larger computation: called by all threads of one parallel region, each
 * ends with all of them having arrived. What each computes stands beside its exported twin.
 */
#ifndef MILLRACE_REGIONS_H
#define MILLRACE_REGIONS_H

#include "attention_step.h"

#include <stdint.h>

/* A linear layer: weights as linear_pack makes them, and its bias or NULL. */
typedef struct {
    const uint16_t *weights, *bias;
    int64_t outputs, inputs;
} Linear;

void linear_region(const Linear *layer, const uint16_t *x, void *y, int wide, uint16_t *scratch,
                   int64_t rows);

#define DECLARE(ELEMENT, type)                                                                     \
    void attend_region_##type(const AttentionStep *step, ELEMENT *qkv, ELEMENT *keys,              \
                              ELEMENT *values, const ELEMENT *cosines, const ELEMENT *sines,       \
                              int64_t angle_stride, ELEMENT *output);                              \
    void rms_norm_region_##type(const ELEMENT *x, ELEMENT *residual, const float *weight,          \
                                ELEMENT *y, int64_t rows, int64_t size, int64_t stride,            \
                                float epsilon);                                                    \
    void silu_and_multiply_region_##type(const ELEMENT *x, ELEMENT *y, int64_t rows, int64_t width);

DECLARE(uint16_t, bf16)
DECLARE(float, f32)

#endif
