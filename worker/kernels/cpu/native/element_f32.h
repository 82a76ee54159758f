/* float32 as the element of the kernels that are written for any. */
#include "vectors.h"

#define ELEMENT float
#define STEP 1
#define NAME(name) name##_f32
#define load16 load_f32
#define store16 store_f32
#define load1(from) (*(from))
#define narrow1(x) (x)
#define weight_lanes exp_lanes
#define gate16 silu16

INLINE Lanes multiply_add(Lanes acc, const float *a, const float *b) {
    return acc + *(const Lanes *)a * *b;
}

INLINE void store_lanes(float *to, Lanes x) { *(Lanes *)to = x; }

INLINE void store_two(float *to, f32x16 left, f32x16 right) {
    store_f32(to, left);
    store_f32(to + LANES, right);
}

/* dim values of a token, at its place in its block: [16][dim]. */
INLINE void put_value(float *block, const float *value, int64_t offset, int64_t dim) {
    memcpy(block + offset * dim, value, dim * sizeof(float));
}
