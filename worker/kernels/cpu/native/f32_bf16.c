/* Attention in float32 over keys and values that are kept in bfloat16. */
#define NARROW_CACHE
#include "element_f32.h"

#include "attention.h"
