/* AMX: registers of up to 16 rows of 64 bytes, and products of them. A tile of bfloat16 pairs times
 * one: sums[r][n] += sum over k of a[r][2k] * b[k][2n] + a[r][2k + 1] * b[k][2n + 1].
 */
#ifndef MILLRACE_TILES_H
#define MILLRACE_TILES_H
#if defined(__AMX_BF16__)

#include <immintrin.h>
#include <stdint.h>

#define TILE 16

typedef struct __attribute__((packed, aligned(64))) {
    uint8_t palette, start, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} TileConfig;

/* GCC's intrinsics do not say that they read memory: what has been written there has to be there.
 */
static inline __attribute__((always_inline)) void tiles_will_read(const void *from) {
    __asm__ volatile("" ::"r"(from) : "memory");
}

static inline __attribute__((always_inline)) void tiles_configure(const TileConfig *config) {
    tiles_will_read(config);
    _tile_loadconfig(config);
}

#endif
#endif
