/* Linear layers in float32. */
#include "element_f32.h"

#include "linear.h"
