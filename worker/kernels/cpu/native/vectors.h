/* Sixteen lanes at a time: the vector types of all kernels, and what one element is.
 *
 * Written with the vector extensions of GCC and Clang, so that one source serves every instruction
 * set; what only some processors have (dot products of bfloat16) stands behind the compiler's
 * macros. bfloat16 is the upper half of a float32.
 */
#ifndef MILLRACE_VECTORS_H
#define MILLRACE_VECTORS_H

#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

#define LANES 16
#define EXPORT __attribute__((visibility("default")))
#define INLINE static inline __attribute__((always_inline))

typedef float f32x16 __attribute__((vector_size(64), aligned(4)));
typedef int32_t i32x16 __attribute__((vector_size(64), aligned(4)));
typedef uint32_t u32x16 __attribute__((vector_size(64), aligned(4)));
typedef uint16_t u16x16 __attribute__((vector_size(32), aligned(2)));
typedef uint16_t bf16;

/* As many lanes as a register has. PERF: GCC keeps wider vectors in memory between any two of their
 * operations, so sums of loops are of this type: on AVX2 attention then takes a tenth of the time. */
#if defined(__AVX512F__)
#define WIDTH 16
#else
#define WIDTH 8
#endif
#define PARTS (LANES / WIDTH)
typedef float Lanes __attribute__((vector_size(WIDTH * 4), aligned(4)));
typedef int32_t Whole __attribute__((vector_size(WIDTH * 4), aligned(4)));
typedef uint32_t Bits __attribute__((vector_size(WIDTH * 4), aligned(4)));
typedef uint16_t Halves __attribute__((vector_size(WIDTH * 2), aligned(2)));

INLINE Lanes *part(f32x16 *of, int number) { return (Lanes *)of + number; }

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

INLINE f32x16 splat(float x) { return x - (f32x16){0}; }

INLINE f32x16 load_f32(const float *from) { return *(const f32x16 *)from; }

INLINE void store_f32(float *to, f32x16 x) { *(f32x16 *)to = x; }

INLINE f32x16 load_bf16(const bf16 *from) {
    return (f32x16)(__builtin_convertvector(*(const u16x16 *)from, u32x16) << 16);
}

/* As many of them as a register has lanes. */
INLINE Lanes load_bf16_lanes(const bf16 *from) {
    return (Lanes)(__builtin_convertvector(*(const Halves *)from, Bits) << 16);
}

/* Rounds to nearest, ties to even; a NaN stays one. */
INLINE void store_bf16(bf16 *to, f32x16 x) {
#if defined(__AVX512BF16__)
    *(__m256i_u *)to = (__m256i)_mm512_cvtneps_pbh((__m512)x);
#else
    u32x16 bits = (u32x16)x;
    u32x16 rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    u32x16 nan = (u32x16)(x != x);
    *(u16x16 *)to = __builtin_convertvector((nan & 0x7fc0) | (~nan & rounded), u16x16);
#endif
}

/* Two, one after the other. */
INLINE void store_two_bf16(bf16 *to, f32x16 left, f32x16 right) {
#if defined(__AVX512BF16__)
    _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh((__m512)right, (__m512)left));
#else
    store_bf16(to, left);
    store_bf16(to + LANES, right);
#endif
}

INLINE float bf16_to_float(bf16 x) {
    uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

INLINE bf16 float_to_bf16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (x != x) return 0x7fc0;
    return (bf16)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

INLINE f32x16 select16(i32x16 mask, f32x16 yes, f32x16 no) {
    return (f32x16)((mask & (i32x16)yes) | (~mask & (i32x16)no));
}

INLINE Lanes select_lanes(Whole mask, Lanes yes, Lanes no) {
    return (Lanes)((mask & (Whole)yes) | (~mask & (Whole)no));
}

static const int32_t lane_numbers[LANES] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

/* The larger; b where one is a NaN. */
INLINE Lanes max_lanes(Lanes a, Lanes b) {
#if defined(__AVX512F__)
    return (Lanes)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    return (Lanes)_mm256_max_ps((__m256)a, (__m256)b);
#else
    const Whole yes = a > b;
    return (Lanes)((yes & (Whole)a) | (~yes & (Whole)b));
#endif
}

INLINE f32x16 max16(f32x16 a, f32x16 b) {
    f32x16 most;
#pragma GCC unroll 2
    for (int p = 0; p < PARTS; p++) *part(&most, p) = max_lanes(*part(&a, p), *part(&b, p));
    return most;
}

/* 16 by 16, by halves: what is s beside the diagonal of a square of 2 s changes its side (Eklundh
 * 1972). */
INLINE void transpose16(u32x16 *rows) {
    static const i32x16 lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
#pragma GCC unroll 4
    for (int s = 1; s < LANES; s *= 2) {
        const i32x16 far = (lane & s) != 0; /* -1 where so */
        const i32x16 left = lane + (far & (LANES - s)), right = lane + (far & LANES) + (~far & s);
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++) {
            if (i & s) continue;
            const u32x16 a = rows[i], b = rows[i + s];
            rows[i] = __builtin_shuffle(a, b, left);
            rows[i + s] = __builtin_shuffle(a, b, right);
        }
    }
}

#if WIDTH == 8
/* Both halves of a register, and then of what is left. */
INLINE __m128 folded(Lanes x, __m128 (*fold)(__m128, __m128)) {
    __m128 four = fold(_mm256_castps256_ps128((__m256)x), _mm256_extractf128_ps((__m256)x, 1));
    four = fold(four, _mm_movehl_ps(four, four));
    return fold(four, _mm_movehdup_ps(four));
}

INLINE __m128 sum_of_fours(__m128 a, __m128 b) { return _mm_add_ps(a, b); }

INLINE __m128 most_of_fours(__m128 a, __m128 b) { return _mm_max_ps(a, b); }
#endif

INLINE float sum_of_lanes(Lanes x) {
#if WIDTH == 16
    return _mm512_reduce_add_ps((__m512)x);
#else
    return _mm_cvtss_f32(folded(x, sum_of_fours));
#endif
}

INLINE float most_of(Lanes x) {
#if WIDTH == 16
    return _mm512_reduce_max_ps((__m512)x);
#else
    return _mm_cvtss_f32(folded(x, most_of_fours));
#endif
}

INLINE float sum_of(f32x16 x) {
    Lanes sum = *part(&x, 0);
    for (int p = 1; p < PARTS; p++) sum += *part(&x, p);
    return sum_of_lanes(sum);
}

INLINE float max_of(f32x16 x) {
    Lanes most = *part(&x, 0);
    for (int p = 1; p < PARTS; p++) most = max_lanes(most, *part(&x, p));
    return most_of(most);
}

/* e to the power of x, for x <= 88: two parts of ln 2, then a polynomial (Cephes' coefficients);
 * 2 ulp. Below -87, and for -inf, 0; of a NaN, a NaN. PERF: not vscalefps, which took half the time
 * of attention on an Emerald Rapids. */
INLINE Lanes exp_lanes(Lanes x) {
    const Lanes least = (Lanes){0} - 87.0f;
    Lanes bounded = max_lanes(least, x);
    Lanes turns = bounded * 1.44269504f + 12582912.0f - 12582912.0f; /* 1.5 * 2^23: rounds */
    Lanes rest = bounded - turns * 0.693359375f;
    rest = rest + turns * 2.12194440e-4f;
    Lanes y = rest * 1.9875691500e-4f + 1.3981999507e-3f;
    y = y * rest + 8.3334519073e-3f;
    y = y * rest + 4.1665795894e-2f;
    y = y * rest + 1.6666665459e-1f;
    y = y * rest + 5.0000001201e-1f;
    y = y * (rest * rest) + (rest + 1.0f);
    Whole power = __builtin_convertvector(turns, Whole);
    y = (Lanes)((Whole)y + (power << 23));
#if defined(__AVX512F__)
    __mmask16 tiny = _mm512_cmp_ps_mask((__m512)x, (__m512)least, _CMP_LT_OQ);
    return (Lanes)_mm512_mask_mov_ps((__m512)y, tiny, _mm512_setzero_ps());
#else
    return (Lanes)(~(x < least) & (Whole)y);
#endif
}

INLINE f32x16 exp16(f32x16 x) {
    f32x16 y;
#pragma GCC unroll 2
    for (int p = 0; p < PARTS; p++) *part(&y, p) = exp_lanes(*part(&x, p));
    return y;
}

/* 2 to the power of x <= 126, to 1.1e-4 (enough for what is rounded to bfloat16), from (x + 127)
 * 2^23: its whole part is the exponent's bits as they are, the rest the mantissa's, after a
 * polynomial from [1, 2) to [1, 2) that maps 1 to 1 (checked for every float32 there). Below -127,
 * for -inf and for a NaN, 0. */
INLINE f32x16 power16(f32x16 scaled) {
    const i32x16 mantissa = (i32x16){0} + 0x7fffff;
    i32x16 bits = __builtin_convertvector(max16(scaled, splat(0.0f)), i32x16);
    f32x16 rest = (f32x16)((bits & mantissa) | 0x3f800000);
    f32x16 y = rest * 0.0782128349f - 0.00825383049f;
    y = y * rest + 0.477271527f;
    y = y * rest + 0.452769428f;
#if defined(__AVX512F__)
    return (f32x16)_mm512_ternarylogic_epi32((__m512i)mantissa, (__m512i)y, (__m512i)bits, 0xca);
#else
    return (f32x16)((bits & ~mantissa) | ((i32x16)y & mantissa));
#endif
}

#define POWER_UNIT 8388608.0f /* 2^23 */

/* e to the power of x <= 87, as power16. */
INLINE f32x16 short_exp16(f32x16 x) {
    return power16(x * (1.44269504f * POWER_UNIT) + 127 * POWER_UNIT);
}

INLINE f32x16 silu16(f32x16 x) {
    f32x16 y;
#pragma GCC unroll 2
    for (int p = 0; p < PARTS; p++) {
        const Lanes some = *part(&x, p), bounded = max_lanes(some, (Lanes){0} - 88.0f);
        *part(&y, p) = some / (1.0f + exp_lanes(-bounded));
    }
    return y;
}

/* 1 / x to 2^-14. */
INLINE f32x16 short_reciprocal16(f32x16 x) {
#if defined(__AVX512F__)
    return (f32x16)_mm512_rcp14_ps((__m512)x);
#else
    return 1.0f / x;
#endif
}

/* As silu16, for what is rounded to bfloat16: PERF: a division takes as long as all the rest. */
INLINE f32x16 short_silu16(f32x16 x) {
    return x * short_reciprocal16(1.0f + short_exp16(-max16(x, splat(-88.0f))));
}

INLINE Lanes tanh_lanes(Lanes x) {
    const Lanes least = (Lanes){0} - 15.0f;
    x = max_lanes(-max_lanes(-x, least), least);
    return 1.0f - 2.0f / (exp_lanes(x + x) + 1.0f);
}

/* acc[i] += a[2i] * b[0] + a[2i + 1] * b[1]: 32 elements of bfloat16, and a pair of them. */
INLINE f32x16 dot_pairs(f32x16 acc, const bf16 *a, const bf16 *pair) {
    uint32_t both;
    memcpy(&both, pair, sizeof both);
#if defined(__AVX512BF16__)
    return (f32x16)_mm512_dpbf16_ps((__m512)acc, (__m512bh)_mm512_loadu_si512(a),
                                    (__m512bh)_mm512_set1_epi32((int)both));
#else
    u32x16 bits = *(const u32x16 *)a;
    acc += (f32x16)(bits << 16) * bf16_to_float((bf16)both);
    return acc + (f32x16)(bits & 0xffff0000u) * bf16_to_float((bf16)(both >> 16));
#endif
}

#endif
