"""Softmax over one tile of keys after another: the step that attention kernels repeat.

A part of kernels, on the device. Works in powers of two: whoever calls it has multiplied scores by
log2(e), as ``in_powers_of_two`` does.
"""

import triton
import triton.language as tl

from worker.kernels.reference.attention import AttentionShape, KVScales

_LOG2_E = 1.4426950408889634
_TO_POWERS_OF_TWO = tl.constexpr(_LOG2_E)

STAGES = 5
"""Of the pipeline over tiles. PERF: keys are behind a load of the block table, which takes as many
stages as they do: with 3 or 4, Triton gives them one buffer and waits for each tile before it asks
for the next; with 5 they have two, and a tile is on its way while another is multiplied."""


def in_powers_of_two(shape: AttentionShape, scales: KVScales) -> tuple[float, float]:
    """``scale``, that of the keys included, and ``cap``, as ``score`` and ``absorb`` take them."""
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
    """Queries [M, D] times keys [D, N] to scores [M, N] float32, as ``absorb`` takes them.

    With a cap they are whole, times log2(e), which ``cap`` brings; ``scale`` is then scale / cap.
    Without, they lack the scale: ``absorb`` multiplies. A float32 model gets float32 products:
    Triton would take tf32 for them.
    """
    scores = tl.dot(queries, keys, input_precision="ieee")
    if CAPPED:
        # tanh, as Triton has none: exact at both ends, since exp gives 0 or infinity there.
        scores = cap * (1.0 - 2.0 / (tl.exp(2.0 * scale * scores) + 1.0))
    return scores


@triton.jit
def with_sinks(total, most, sinks):
    """The sums [M] of rows whose heads have sinks [M], too: logits that bring no value.

    A row that has seen nothing stays without values.
    """
    base = tl.where(most == float("-inf"), 0.0, most)
    return total + tl.exp2(sinks.to(tl.float32) * _TO_POWERS_OF_TWO - base)


@triton.jit
def absorb(scores, values, most, total, sums, scale, CAPPED: tl.constexpr):
    """One more tile into the running softmax of each row.

    scores [M, N], -inf where a row does not see a key; values [N, D], zero where nobody does; most
    [M], the largest score so far; total [M] and sums [M, D], relative to it. Returns the new three.
    ``scale`` is positive and brings log2(e). PERF: multiplied where the largest score is taken
    away, it costs nothing: one instruction does both.
    """
    factor = 1.0 if CAPPED else scale
    larger = tl.maximum(most, tl.max(scores, 1) * factor)
    # A row that has seen nothing yet has no largest score: -inf less -inf would be NaN.
    base = tl.where(larger == float("-inf"), 0.0, larger)
    weights = tl.exp2(scores * factor - base[:, None])
    kept = tl.exp2(most - base)
    total = total * kept + tl.sum(weights, 1)
    sums = sums * kept[:, None]
    sums = tl.dot(weights.to(values.dtype), values, sums, input_precision="ieee")
    return larger, total, sums
