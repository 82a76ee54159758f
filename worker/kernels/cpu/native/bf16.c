/* Attention and pointwise kernels in bfloat16. */
#include "element_bf16.h"

#include "attention.h"
#include "pointwise.h"
