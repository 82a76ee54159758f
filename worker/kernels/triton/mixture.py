"""Triton kernels: a mixture of experts in a few launches, whatever goes to whom.

Nothing waits for the host: where each expert's tokens are is known on the device alone.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from worker.kernels.mixture import Expert, Held, MixExperts, Routing
from worker.kernels.reference.linear import ActivatedLinear, LinearOperation
from worker.kernels.reference.mixture import OneByOne
from worker.kernels.reference.quantized import Quantized
from worker.kernels.triton.activation import silu_and_multiply
from worker.kernels.triton.coded_experts import coded_matrices
from worker.kernels.triton.experts import Matrices
from worker.kernels.triton.launch import early, follow
from worker.kernels.triton.routing import route
from worker.kernels.triton.tiles import ExpertMatrices

_CHANNELS = 1024
"""Of a row, added up by a program."""


@triton.jit
def _add_weighted(
    outputs,
    weights,
    total,
    size,
    CHOSEN: tl.constexpr,
    BLOCK: tl.constexpr,
    EARLY: tl.constexpr,
):
    """BLOCK channels of one token: outputs [T · CHOSEN, size] to total [T, size]."""
    follow(EARLY)
    token = tl.program_id(0).to(tl.int64)
    channels = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = channels < size
    sums = tl.zeros((BLOCK,), tl.float32)
    for n in tl.static_range(CHOSEN):
        pair = token * CHOSEN + n
        some = tl.load(outputs + pair * size + channels, mask=inside, other=0.0).to(tl.float32)
        sums += some * tl.load(weights + pair)
    tl.store(total + token * size + channels, sums.to(total.dtype.element_ty), mask=inside)


class Together:
    """As ``MixExperts``: a layer's experts in a few launches."""

    capturable = True

    def __init__(self, firsts: ExpertMatrices, seconds: ExpertMatrices, routing: Routing) -> None:
        self._firsts = firsts
        self._seconds = seconds
        self._routing = routing

    def __call__(self, x: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """As ``MixExperts.__call__``."""
        tokens, hidden = x.shape
        total = x.new_empty((tokens, hidden))
        if not tokens:
            return total
        x = x if x.stride(1) == 1 else x.contiguous()
        routed = route(logits, self._routing)
        inner = self._firsts.multiply(x, routed, gated=True)
        outputs = self._seconds.multiply(inner, routed, gated=False)
        _add_weighted[(tokens, triton.cdiv(hidden, _CHANNELS))](
            outputs, routed.weights, total, hidden,
            CHOSEN=self._routing.chosen, BLOCK=_CHANNELS, num_warps=4, **early(x.device),
        )  # fmt: skip
        return total


def mix(experts: Sequence[Expert], routing: Routing) -> MixExperts:
    """One of experts whose matrices are ``Held``; one by one where the kernels cannot do it."""
    firsts = _matrices([_before_silu(expert.first) for expert in experts])
    seconds = _matrices([expert.second for expert in experts])
    if firsts is None or seconds is None:
        return OneByOne(experts, routing)
    return Together(firsts, seconds, routing)


def _before_silu(operation: LinearOperation) -> LinearOperation | None:
    if isinstance(operation, ActivatedLinear) and operation.activation is silu_and_multiply:
        return operation.linear
    return None


def _matrices(layers: Sequence[LinearOperation | None]) -> ExpertMatrices | None:
    """Of layers whose weights are held, all of them as they are or codes of a kind; else None."""
    held = [layer.weight for layer in layers if isinstance(layer, Held)]
    plain = [weight for weight in held if isinstance(weight, torch.Tensor)]
    if len(plain) == len(layers):
        return Matrices(plain)
    codes = [weight for weight in held if isinstance(weight, Quantized)]
    return coded_matrices(codes) if len(codes) == len(layers) else None
