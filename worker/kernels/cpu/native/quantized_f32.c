/* Linear layers of codes in float32. */
#include "element_f32.h"

#include "quantized.h"
