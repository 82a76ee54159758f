/* float32 as the element of the kernels that are written for any; with NARROW_CACHE keys and values
 * are kept in bfloat16. */
#include "vectors.h"

#define ELEMENT float
#define STEP 1
#define load16 load_f32
#define store16 store_f32
#define load1(from) (*(from))
#define narrow1(x) (x)
#define weight_lanes exp_lanes
#define gate16 silu16

INLINE void store_lanes(float *to, Lanes x) { *(Lanes *)to = x; }

INLINE void store_two(float *to, f32x16 left, f32x16 right) {
    store_f32(to, left);
    store_f32(to + LANES, right);
}

#if defined(NARROW_CACHE)
#define CACHED bf16
#define NAME(name) name##_f32_bf16
#define keep16 store_bf16
#define keep1 float_to_bf16

INLINE Lanes multiply_add(Lanes acc, const bf16 *a, const float *b) {
    return acc + load_bf16_lanes(a) * *b;
}
#else
#define CACHED float
#define NAME(name) name##_f32
#define keep16 store_f32
#define keep1 narrow1

INLINE Lanes multiply_add(Lanes acc, const float *a, const float *b) {
    return acc + *(const Lanes *)a * *b;
}
#endif

/* dim values of a token, at its place in its block: [16][dim]. */
INLINE void put_value(CACHED *block, const float *value, int64_t offset, int64_t dim) {
    for (int64_t i = 0; i < dim; i += LANES) keep16(block + offset * dim + i, load_f32(value + i));
}

/* Some of a token's key, at its place among the lanes of a block. */
INLINE void put_key_part(CACHED *to, const float *part) { *to = keep1(*part); }

/* The same of 16 tokens. */
INLINE void put_key_parts(CACHED *to, u32x16 parts) { keep16(to, (f32x16)parts); }
