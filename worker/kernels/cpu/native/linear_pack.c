/* Weights of linear layers, [N, K], in panels of 32 outputs that are read from front to back: of
 * units of 2 or 4 bytes (an input, or two of bfloat16), [N / 32][units][32]. N is padded with zeros
 * to a multiple of 32. A panel of a gated layer has 16 gates and then their ups; N / 2 must be a
 * multiple of 16.
 */
#include "regions.h"
#include "vectors.h"

#include <stddef.h>

INLINE void pack_panel(const int unit_bytes, const char *weight, char *to, int64_t number,
                       int64_t outputs, int64_t units, int64_t gated) {
    const char *rows[PANEL];
    for (int64_t i = 0; i < PANEL; i++) {
        int64_t n = number * PANEL + i;
        if (gated) n = number * LANES + i % LANES + i / LANES * (outputs / 2);
        rows[i] = n < outputs ? weight + n * units * unit_bytes : NULL;
    }
    for (int64_t k = 0; k < units; k++)
        for (int64_t i = 0; i < PANEL; i++, to += unit_bytes) {
            if (rows[i]) memcpy(to, rows[i] + k * unit_bytes, unit_bytes);
            else memset(to, 0, unit_bytes);
        }
}

EXPORT void linear_pack(const char *weight, char *packed, int64_t outputs, int64_t units,
                        int64_t unit_bytes, int64_t gated) {
    const int64_t panels = (outputs + PANEL - 1) / PANEL;
#pragma omp parallel for
    for (int64_t p = 0; p < panels; p++) {
        char *to = packed + p * PANEL * units * unit_bytes;
        if (unit_bytes == 2) pack_panel(2, weight, to, p, outputs, units, gated);
        else pack_panel(4, weight, to, p, outputs, units, gated);
    }
}
