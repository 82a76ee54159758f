/* The activations of feed-forward blocks, sixteen numbers at a time. */
#ifndef MILLRACE_ACTIVATIONS_H
#define MILLRACE_ACTIVATIONS_H

#include "vectors.h"

/* As activation.py numbers them. */
enum { NO_ACTIVATION, SILU, GELU, GELU_TANH, RELU };

/* The error function to 2e-7 (Abramowitz and Stegun 1964, 7.1.26). */
INLINE f32x16 erf16(f32x16 x) {
    f32x16 size = max16(x, -x), t = 1.0f / (1.0f + 0.3275911f * size);
    f32x16 y = t * 1.061405429f - 1.453152027f;
    y = y * t + 1.421413741f;
    y = y * t - 0.284496736f;
    y = y * t + 0.254829592f;
    y = 1.0f - y * t * exp16(-size * size);
    return select16(x < 0, -y, y);
}

/* x times the normal distribution's share below x (Hendrycks and Gimpel 2016). */
INLINE f32x16 gelu16(f32x16 x) { return 0.5f * x * (1.0f + erf16(x * 0.70710678f)); }

/* Its approximation from the same, 0.5 x (1 + tanh(z)), which is x / (1 + exp(-2 z)). */
INLINE f32x16 gelu_tanh16(f32x16 x) {
    f32x16 doubled = 1.5957691216f * (x + 0.044715f * x * x * x);
    return x / (1.0f + exp16(-max16(doubled, splat(-88.0f))));
}

INLINE f32x16 activation16(const int64_t function, f32x16 x) {
    switch (function) {
        case SILU: return silu16(x);
        case GELU: return gelu16(x);
        case GELU_TANH: return gelu_tanh16(x);
        default: return select16(x < 0, splat(0), x);
    }
}

#endif
