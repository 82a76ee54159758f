/* Attention and pointwise kernels in float32. */
#include "element_f32.h"

#include "attention.h"
#include "pointwise.h"
