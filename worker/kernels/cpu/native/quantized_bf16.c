/* Linear layers of codes in bfloat16. */
#include "element_bf16.h"

#include "quantized.h"
