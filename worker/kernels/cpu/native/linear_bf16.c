/* Linear layers in bfloat16. */
#include "element_bf16.h"

#include "linear.h"
