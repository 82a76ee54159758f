/* Stacks of decoder layers in bfloat16. */
#include "element_bf16.h"

#include "layers.h"
