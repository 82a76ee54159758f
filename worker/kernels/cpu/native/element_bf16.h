/* bfloat16 as the element of the kernels that are written for any. */
#include "vectors.h"

#define ELEMENT bf16
#define CACHED bf16
#define STEP 2
#define NAME(name) name##_bf16
#define load16 load_bf16
#define store16 store_bf16
#define store_lanes store_bf16
#define store_two store_two_bf16
#define load1(from) bf16_to_float(*(from))
#define narrow1 float_to_bf16
#define multiply_add dot_pairs
#define weight_lanes short_exp16
#define gate16 short_silu16

/* dim values of a token, at its place in its block: [8][dim][2]. */
INLINE void put_value(bf16 *block, const bf16 *value, int64_t offset, int64_t dim) {
    uint32_t *to = (uint32_t *)(block + offset / 2 * 2 * dim);
    const uint32_t shift = offset % 2 * 16;
    for (int64_t i = 0; i < dim; i += LANES) {
        u32x16 pairs = *(u32x16 *)(to + i) & (0xffff0000u >> shift);
        *(u32x16 *)(to + i) =
            pairs | __builtin_convertvector(*(const u16x16 *)(value + i), u32x16) << shift;
    }
}

/* A pair of a token's key, at its place among the lanes of a block. */
INLINE void put_key_part(bf16 *to, const bf16 *part) { memcpy(to, part, 2 * sizeof(bf16)); }

/* The same of 16 tokens. */
INLINE void put_key_parts(bf16 *to, u32x16 parts) { *(u32x16 *)to = parts; }

#if defined(__AMX_BF16__)
#include "attention_tiles.h"
#define TILE_ROWS 3 /* PERF: from here on tiles are faster than dot products */
#endif
