"""Triton kernels: a mixture of experts in a few launches, whatever goes to whom.

Nothing waits for the host: where each expert's tokens are is known on the device alone.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from worker.kernels.mixture import Expert, Held, MixExperts, Routing
from worker.kernels.reference.activation import Activation, clamp_and_multiply
from worker.kernels.reference.linear import ActivatedLinear, LinearOperation
from worker.kernels.reference.mixture import OneByOne
from worker.kernels.reference.quantized import Quantized
from worker.kernels.triton.activation import Gate, silu_and_multiply
from worker.kernels.triton.coded_experts import coded_matrices
from worker.kernels.triton.experts import Matrices
from worker.kernels.triton.launch import early, follow
from worker.kernels.triton.routing import route
from worker.kernels.triton.tiles import ExpertMatrices

_CHANNELS = 1024
"""Of a row, added up by a program."""
_GATES: dict[Activation, Gate] = {
    silu_and_multiply: Gate.SILU,
    clamp_and_multiply: Gate.CLAMPED,
}


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

    def __init__(
        self, firsts: ExpertMatrices, gate: Gate, seconds: ExpertMatrices, routing: Routing
    ) -> None:
        self._firsts = firsts
        self._gate = gate
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
        inner = self._firsts.multiply(x, routed, self._gate)
        outputs = self._seconds.multiply(inner, routed, None)
        _add_weighted[(tokens, triton.cdiv(hidden, _CHANNELS))](
            outputs, routed.weights, total, hidden,
            CHOSEN=self._routing.chosen, BLOCK=_CHANNELS, num_warps=4, **early(x.device),
        )  # fmt: skip
        return total


def mix(experts: Sequence[Expert], routing: Routing) -> MixExperts:
    """One of experts whose matrices are ``Held``; one by one where the kernels cannot do it."""
    opened = [_opened(expert.first) for expert in experts]
    gates = {gate for _, gate in opened}
    firsts = _matrices([linear for linear, _ in opened])
    seconds = _matrices([expert.second for expert in experts])
    gate = gates.pop()
    if firsts is None or seconds is None or gate is None or gates:
        return OneByOne(experts, routing)
    return Together(firsts, gate, seconds, routing)


def _opened(operation: LinearOperation) -> tuple[LinearOperation, Gate | None]:
    """A linear layer, and what follows it; None: something else."""
    if isinstance(operation, ActivatedLinear):
        return operation.linear, _GATES.get(operation.activation)
    return operation, None


def _matrices(layers: Sequence[LinearOperation]) -> ExpertMatrices | None:
    """Of layers that are held, all of them as they are or codes of a kind; else None."""
    held = [layer for layer in layers if isinstance(layer, Held)]
    biases = [layer.bias for layer in held if layer.bias is not None]
    if len(held) < len(layers) or len(biases) not in (0, len(layers)):
        return None
    plain = [layer.weight for layer in held if isinstance(layer.weight, torch.Tensor)]
    if len(plain) == len(layers):
        return Matrices(plain, biases)
    codes = [layer.weight for layer in held if isinstance(layer.weight, Quantized)]
    return coded_matrices(codes, biases) if len(codes) == len(layers) else None
