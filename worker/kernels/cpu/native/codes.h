/* Weights in few bits, unpacked sixteen outputs at a time, as numbers without their scales: exact in
 * bfloat16 where they are integers or float8, the nearest there where they are levels.
 *
 * A panel has 32 outputs (16 on its left, 16 on its right). What is read at once, a unit, is 4 inputs
 * of a panel, as two pairs: of INTEGER, for each pair and side, 16 codes of the pair's first input and
 * then 16 of its second; of FLOAT8 the same by output, first and second side by side; of NIBBLE 16
 * bits for each output and place in its pair, from the lowest: left and right of the first pair, left
 * and right of the second.
 *
 * For the element type that the including file defines (see attention.h). A vector of bfloat16 has the
 * pairs of 16 outputs, one of float32 one input of 16 outputs.
 */
#ifndef MILLRACE_CODES_H
#define MILLRACE_CODES_H

#include "regions.h"
#include "vectors.h"

#define UNIT 4                /* inputs */
#define VECTORS (UNIT / STEP) /* of a unit, on each side */

INLINE int64_t unit_bytes(const int coding) { return UNIT * PANEL / (coding == NIBBLE ? 2 : 1); }

#if STEP == 2

typedef __m512i Vector, Table;

/* 16 levels, twice: of an index's five bits the last four count. */
INLINE Table table_of(const Codes *codes) {
    if (codes->coding == FLOAT8) { /* what has no exponent: eighths of the smallest that has */
        static const uint16_t small[32] = {0,      0x3b00, 0x3b80, 0x3bc0,
                                           0x3c00, 0x3c20, 0x3c40, 0x3c60};
        return _mm512_loadu_si512(small);
    }
    if (codes->coding == INTEGER) return _mm512_setzero_si512();
    const __m256i half = (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(codes->levels));
    return _mm512_inserti64x4(_mm512_castsi256_si512(half), half, 1);
}

INLINE __m512i float_bits(const uint8_t *codes) {
    const __m128i sixteen = _mm_loadu_si128((const __m128i *)codes);
    return (__m512i)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(sixteen));
}

/* An integer of 8 bits is exact in the upper half of a float32. */
INLINE Vector integer_pairs(const uint8_t *codes) {
    return _mm512_or_si512(_mm512_srli_epi32(float_bits(codes), 16), float_bits(codes + LANES));
}

/* e4m3 is a bfloat16 with a shorter exponent. */
INLINE Vector float8_pairs(const uint8_t *codes, Table small) {
    const __m512i code = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)codes));
    const __m512i size = _mm512_and_si512(_mm512_slli_epi16(code, 4), _mm512_set1_epi16(0x7f0));
    const __mmask32 tiny = _mm512_testn_epi16_mask(code, _mm512_set1_epi16(0x78));
    __m512i bits = _mm512_add_epi16(size, _mm512_set1_epi16(120 << 7));
    bits = _mm512_mask_permutexvar_epi16(bits, tiny, code, small);
    return _mm512_ternarylogic_epi32(bits, code, _mm512_set1_epi16((short)0x8000), 0xf8);
}

INLINE void unpack(const int coding, const uint8_t *codes, Table table, Vector to[VECTORS][2]) {
    if (coding == NIBBLE) {
        const __m512i words = _mm512_loadu_si512(codes);
        to[0][0] = _mm512_permutexvar_epi16(words, table);
        to[0][1] = _mm512_permutexvar_epi16(_mm512_srli_epi16(words, 4), table);
        to[1][0] = _mm512_permutexvar_epi16(_mm512_srli_epi16(words, 8), table);
        to[1][1] = _mm512_permutexvar_epi16(_mm512_srli_epi16(words, 12), table);
        return;
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++, codes += PANEL)
        to[i / 2][i % 2] = coding == INTEGER ? integer_pairs(codes) : float8_pairs(codes, table);
}

INLINE f32x16 add_products(f32x16 sums, Vector weights, const bf16 *x) {
    uint32_t pair;
    memcpy(&pair, x, sizeof pair);
    return (f32x16)_mm512_dpbf16_ps((__m512)sums, (__m512bh)weights,
                                    (__m512bh)_mm512_set1_epi32((int)pair));
}

INLINE void store_vector(bf16 *to, Vector x) { _mm512_storeu_si512(to, x); }

/* x * scale + offset; rounds to nearest, ties away from zero. */
INLINE Vector scaled(Vector x, f32x16 scale, f32x16 offset) {
    const u32x16 upper = (u32x16){0} + 0xffff0000u;
    f32x16 first = (f32x16)((u32x16)x << 16) * scale + offset;
    f32x16 second = (f32x16)((u32x16)x & upper) * scale + offset;
    return (Vector)((((u32x16)first + 0x8000) >> 16) | (((u32x16)second + 0x8000) & upper));
}

#else

typedef int8_t i8x16 __attribute__((vector_size(16), aligned(1)));
typedef f32x16 Vector;
typedef const float *Table;

INLINE Table table_of(const Codes *codes) { return codes->levels; }

INLINE f32x16 level_of(i32x16 index, Table levels) {
#if defined(__AVX512F__)
    return (f32x16)_mm512_permutexvar_ps((__m512i)index, _mm512_loadu_ps(levels));
#else
    const __m256 low = _mm256_loadu_ps(levels), high = _mm256_loadu_ps(levels + 8);
    f32x16 found;
    for (int i = 0; i < 2; i++) {
        const __m256i some = _mm256_loadu_si256((const __m256i *)&index + i);
        const __m256 upper = _mm256_castsi256_ps(_mm256_slli_epi32(some, 28));
        const __m256 each = _mm256_blendv_ps(_mm256_permutevar8x32_ps(low, some),
                                             _mm256_permutevar8x32_ps(high, some), upper);
        _mm256_storeu_ps((float *)&found + 8 * i, each);
    }
    return found;
#endif
}

INLINE f32x16 integers(const uint8_t *codes) {
    const i32x16 wide = __builtin_convertvector(*(const i8x16 *)codes, i32x16);
    return __builtin_convertvector(wide, f32x16);
}

/* Of e4m3 in the lowest 8 bits. What has no exponent is 2^-6 too large as if it had the smallest. */
INLINE f32x16 float8_of(u32x16 code) {
    const u32x16 size = code & 0x7f, tiny = (u32x16)(size < 8);
    const u32x16 bits = (size << 20) + (120 << 23) + (tiny & (1 << 23));
    const f32x16 value = (f32x16)bits - (f32x16)(tiny & 0x3c800000);
    return (f32x16)((u32x16)value | (code & 0x80) << 24);
}

INLINE void unpack(const int coding, const uint8_t *codes, Table table, Vector to[VECTORS][2]) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        const int pair = i / 2 * 2, side = i % 2;
        if (coding == NIBBLE) {
            const u32x16 words = *(const u32x16 *)codes;
            to[pair][side] = level_of((i32x16)(words >> (4 * i) & 15), table);
            to[pair + 1][side] = level_of((i32x16)(words >> (4 * i + 16) & 15), table);
        } else if (coding == INTEGER) {
            to[pair][side] = integers(codes + i * PANEL);
            to[pair + 1][side] = integers(codes + i * PANEL + LANES);
        } else {
            const u32x16 both =
                __builtin_convertvector(*(const u16x16 *)(codes + i * PANEL), u32x16);
            to[pair][side] = float8_of(both & 0xff);
            to[pair + 1][side] = float8_of(both >> 8);
        }
    }
}

INLINE f32x16 add_products(f32x16 sums, Vector weights, const float *x) {
    return sums + weights * *x;
}

INLINE void store_vector(float *to, Vector x) { store_f32(to, x); }

INLINE Vector scaled(Vector x, f32x16 scale, f32x16 offset) { return x * scale + offset; }

#endif
#endif
