"""Softmax over one tile of keys after another: the step that attention kernels repeat.

A part of kernels, on the device. Works in powers of two: whoever calls it has multiplied scores by
log2(e), as ``in_powers_of_two`` does.
"""

import triton
import triton.language as tl

from worker.kernels.reference.attention import AttentionShape, KVScales

_LOG2_E = 1.4426950408889634


def in_powers_of_two(shape: AttentionShape, scales: KVScales) -> tuple[float, float]:
    """``scale``, that of the keys included, and ``cap`` as ``score`` takes them."""
    scale = shape.scale * scales.keys
    if shape.cap is None:
        return scale * _LOG2_E, 0.0
    return scale / shape.cap, shape.cap * _LOG2_E


@triton.jit
def score(
    queries,
    keys,
    scale,
    cap,
    CAPPED: tl.constexpr,
):
    """Queries [M, D] times keys [D, N] to scores [M, N] float32, times log2(e).

    ``scale`` brings log2(e) with it; with a cap it is scale / cap, and the cap brings log2(e). A
    float32 model gets float32 products: Triton would take tf32 for them.
    """
    scores = tl.dot(queries, keys, input_precision="ieee") * scale
    if CAPPED:
        # tanh, as Triton has none: exact at both ends, since exp gives 0 or infinity there.
        scores = cap * (1.0 - 2.0 / (tl.exp(2.0 * scores) + 1.0))
    return scores


@triton.jit
def absorb(scores, values, most, total, sums):
    """One more tile into the running softmax of each row.

    scores [M, N], -inf where a row does not see a key; values [N, D], zero where nobody does; most
    [M], the largest score so far; total [M] and sums [M, D], relative to it. Returns the new three.
    """
    larger = tl.maximum(most, tl.max(scores, 1))
    # A row that has seen nothing yet has no largest score: -inf less -inf would be NaN.
    base = tl.where(larger == float("-inf"), 0.0, larger)
    weights = tl.exp2(scores - base[:, None])
    kept = tl.exp2(most - base)
    total = total * kept + tl.sum(weights, 1)
    sums = sums * kept[:, None]
    sums = tl.dot(weights.to(values.dtype), values, sums, input_precision="ieee")
    return larger, total, sums
