/* bfloat16 as the element of the kernels that are written for any. */
#include "vectors.h"

#define ELEMENT bf16
#define STEP 2
#define NAME(name) name##_bf16
#define load16 load_bf16
#define store16 store_bf16
#define load1(from) bf16_to_float(*(from))
#define narrow1 float_to_bf16
#define multiply_add dot_pairs
#define weight16 short_exp16

#if defined(__AMX_BF16__)
#include "attention_tiles.h"
#define TILE_ROWS 9 /* PERF: from here on tiles are faster than dot products */
#endif
