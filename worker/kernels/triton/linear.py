"""Triton kernel: a linear layer of few rows, as decoding has them; who decides when it is taken.

Such a layer takes as long as its weights take to be read. The kernel reads them once, from front to
back, many bytes ahead of their use, and ends with what follows: a bias, the gated SiLU, numbers in
float32. Where kernels may overlap it asks for its first weights while the one before it still runs.
Whether it or torch's operator (cuBLAS) is faster depends on the GPU, the matrix and the rows: each
shape of a model is measured, once, at its start, as decoding has it: layer after layer in a graph.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from worker.kernels.reference import linear as reference
from worker.kernels.reference.linear import ActivatedLinear, LinearOperation
from worker.kernels.triton.activation import SILU, gate_and_multiply, silu_and_multiply
from worker.kernels.triton.launch import LINE_BYTES, early, follow, prefetch
from worker.transfers import Program, Transfers

MOST_ROWS = 16
"""What one tile of the matrix instructions holds."""
MEASURED = (1, 2, 4, 8, MOST_ROWS)
"""Rows that are measured; numbers between two of them go with the larger."""
_ENOUGH = 0.97
"""Of torch's time: what takes less is taken. Two figures of one kernel differ by as much."""
_OUTPUTS = 16
_LEAST_INPUTS, _MOST_INPUTS = 16, 256
"""At a time."""
_STAGES = 5
_PREFETCHED = tl.constexpr(1024)
"""Inputs whose weights are asked for early: all programs that run at a time have 8 MB then, what a
few microseconds bring. They are those that the loop asks for first."""
_LINE = tl.constexpr(LINE_BYTES // 2)
_REPEATED_MS = 10.0
_MOST_REPETITIONS = 200

Time = Callable[[Sequence[Callable[[], torch.Tensor]]], float]

_log = logging.getLogger(__name__)


@triton.jit(do_not_specialize=["rows"])  # they change from step to step
def _linear_of_few(
    x,
    x_row,
    weight,
    to_ups,
    bias,
    output,
    rows,
    outputs,
    inputs,
    GATED: tl.constexpr,
    BIAS: tl.constexpr,
    WHOLE: tl.constexpr,
    ROWS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    INPUTS: tl.constexpr,
    EARLY: tl.constexpr,
):
    """All rows of x [rows, inputs], OUTPUTS outputs: output [rows, outputs].

    weight [outputs, inputs]; if GATED, as many ups below, ``to_ups`` numbers on. WHOLE: inputs are
    a multiple of INPUTS.
    """
    n = tl.program_id(0) * OUTPUTS + tl.arange(0, OUTPUTS)
    m = tl.arange(0, ROWS)
    k = tl.arange(0, INPUTS)
    here, inside = m < rows, n < outputs
    wide = n.to(tl.int64)
    where_x = x + m.to(tl.int64)[:, None] * x_row + k[None, :]
    where = weight + wide[None, :] * inputs + k[:, None]
    if EARLY:
        lines = tl.minimum(tl.arange(0, _PREFETCHED // _LINE) * _LINE, inputs - 1)
        firsts = weight + tl.minimum(wide, outputs - 1)[:, None] * inputs + lines[None, :]
        prefetch(firsts)
        if GATED:
            prefetch(firsts + to_ups)
    follow(EARLY)
    sums = tl.zeros((ROWS, OUTPUTS), tl.float32)
    ups = tl.zeros((ROWS, OUTPUTS), tl.float32)
    for start in range(0, inputs, INPUTS):
        held, wanted = here[:, None], inside[None, :]
        if not WHOLE:
            left = k < inputs - start
            held, wanted = held & left[None, :], wanted & left[:, None]
        some = tl.load(where_x + start, mask=held, other=0.0)
        numbers = tl.load(where + start, mask=wanted, other=0.0, eviction_policy="evict_first")
        sums = tl.dot(some, numbers, sums)
        if GATED:
            numbers = tl.load(
                where + to_ups + start, mask=wanted, other=0.0, eviction_policy="evict_first"
            )
            ups = tl.dot(some, numbers, ups)
    if BIAS:
        sums += tl.load(bias + n, mask=inside, other=0.0).to(tl.float32)[None, :]
    if GATED:
        if BIAS:
            ups += tl.load(bias + outputs + n, mask=inside, other=0.0).to(tl.float32)[None, :]
        sums = gate_and_multiply(sums, ups, SILU)
    where = output + m.to(tl.int64)[:, None] * outputs + wide[None, :]
    tl.store(where, sums.to(output.dtype.element_ty), mask=here[:, None] & inside[None, :])


def multiply(
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    x: torch.Tensor,
    *,
    gated: bool = False,
    dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """``x @ weight.T + bias`` of 1 to 16 rows, as a new tensor [rows, outputs] of ``dtype`` (x's).

    x [rows, inputs] in 16 bits, weight [outputs, inputs], side by side, in the same dtype.
    ``gated``: the outputs are gates and, below them, ups; the result is ``silu(gates) * ups``.
    """
    outputs, inputs = weight.shape
    x = x if x.stride(1) == 1 else x.contiguous()
    if gated:
        outputs //= 2
    y = torch.empty((len(x), outputs), dtype=dtype or x.dtype, device=x.device)
    together = min(_MOST_INPUTS, max(_LEAST_INPUTS, triton.next_power_of_2(inputs)))
    _linear_of_few[(triton.cdiv(outputs, _OUTPUTS),)](
        x, x.stride(0), weight, outputs * inputs, weight if bias is None else bias, y, len(x),
        outputs, inputs,
        GATED=gated, BIAS=bias is not None, WHOLE=inputs % together == 0,
        ROWS=MOST_ROWS, OUTPUTS=_OUTPUTS, INPUTS=together, num_warps=4, num_stages=_STAGES,
        **early(x.device),
    )  # fmt: skip
    return y


@dataclass(frozen=True, slots=True)
class FewOrMany:
    """A linear layer, with its activation, in two ways; as ``LinearOperation`` and ``Closed``."""

    few: LinearOperation
    """In the kernel."""
    many: LinearOperation
    """In torch."""
    taken: list[bool] = field(default_factory=lambda: [False] * (MOST_ROWS + 1))
    """By the number of rows, whether it is the first. Shared by all layers of a shape."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[T, in] to a new tensor [T, out]."""
        rows = len(x)
        return (self.few if rows <= MOST_ROWS and self.taken[rows] else self.many)(x)

    def opened(self) -> ActivatedLinear | None:
        """As ``Closed.opened``."""
        return reference.opened(self.many)


def in_turn_ms(transfers: Transfers, calls: Sequence[Callable[[], torch.Tensor]]) -> float:
    """What one of them takes if all follow each other in a graph, again and again; on a GPU.

    Of calls that read more than the device's caches hold, each finds nothing there. Waits for the
    device.
    """

    def all_of_them(_: tuple[int, ...]) -> torch.Tensor:
        return [call() for call in calls][-1]

    replay = transfers.record(all_of_them, ())
    once_ms = _elapsed_ms(replay, 1)
    repetitions = max(3, min(_MOST_REPETITIONS, round(_REPEATED_MS / once_ms)))
    return _elapsed_ms(replay, repetitions) / repetitions / len(calls)


def _elapsed_ms(replay: Program, repetitions: int) -> float:
    make: Any = torch.cuda.Event
    began, ended = (make(enable_timing=True) for _ in range(2))
    began.record()
    for _ in range(repetitions):
        replay(())
    ended.record()
    ended.synchronize()
    return float(began.elapsed_time(ended))


class _Alike(NamedTuple):
    """Layers that take as long as each other."""

    end: str
    """What they end with."""
    dtype: torch.dtype
    device: torch.device
    shape: torch.Size
    bias: bool


class Trials:
    """Makes a model's linear layers, and finds out which of them gain by the kernel.

    Before ``settle`` all take torch's operator; those that come after it, too.
    """

    def __init__(self, time: Time) -> None:
        """``time``: what each of several calls takes."""
        self._time = time
        self._layers: dict[_Alike, list[FewOrMany]] = {}

    def pack(self, weight: torch.Tensor, bias: torch.Tensor | None) -> LinearOperation:
        """As the reference's ``pack``."""
        few = partial(multiply, weight, bias)
        return self._made("sums", weight, bias, few, reference.pack(weight, bias))

    def pack_wide(self, weight: torch.Tensor, bias: torch.Tensor | None) -> LinearOperation:
        """With its result in float32, which the kernel has not rounded before."""
        few = partial(multiply, weight, bias, dtype=torch.float32)
        many = reference.widened(reference.pack)(weight, bias)
        return self._made("float32", weight, bias, few, many)

    def pack_silu(self, weight: torch.Tensor, bias: torch.Tensor | None) -> LinearOperation:
        """Followed by the gated SiLU."""
        few = partial(multiply, weight, bias, gated=True)
        many = reference.activated(reference.pack, silu_and_multiply)(weight, bias)
        return self._made("silu", weight, bias, few, many)

    def settle(self) -> None:
        """Once the weights are there: measure, and let go of the layers. Waits for the device."""
        for alike, layers in self._layers.items():
            taken = layers[0].taken
            for less, rows in pairwise((0, *MEASURED)):
                taken[less + 1 : rows + 1] = [self._gains(alike, layers, rows)] * (rows - less)
            chosen = [str(rows) for rows in MEASURED if taken[rows]]
            _log.info(
                "linear layers %s, %s: in a kernel of our own with %s rows",
                "x".join(str(size) for size in alike.shape),
                alike.end,
                ", ".join(chosen) or "no",
            )
        self._layers.clear()

    def _made(
        self,
        end: str,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        few: LinearOperation,
        many: LinearOperation,
    ) -> LinearOperation:
        if weight.dtype.itemsize != 2 or not weight.is_contiguous():
            return many
        alike = _Alike(end, weight.dtype, weight.device, weight.shape, bias is not None)
        layers = self._layers.setdefault(alike, [])
        layer = FewOrMany(few, many, layers[0].taken) if layers else FewOrMany(few, many)
        layers.append(layer)
        return layer

    def _gains(self, alike: _Alike, layers: Sequence[FewOrMany], rows: int) -> bool:
        x = torch.randn((rows, alike.shape[1]), dtype=alike.dtype, device=alike.device)
        few = self._time([partial(layer.few, x) for layer in layers])
        many = self._time([partial(layer.many, x) for layer in layers])
        return few < _ENOUGH * many
