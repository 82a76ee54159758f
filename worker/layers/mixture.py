"""A mixture of experts in the place of a feed-forward block.

Runs in the worker. Owns the router and the experts, which are feed-forward blocks, and where their
weights come from; what goes to whom is the kernels' business.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import cached_property

import torch

from worker.kernels.mixture import Expert, MixExperts, Routing
from worker.kernels.reference.quantized import Quantized
from worker.kernels.select import Kernels
from worker.layers.feedforward import GatedFeedForward
from worker.layers.layer import Layer, Place, Slot
from worker.layers.linear import Linear
from worker.sharding import Units


class MixtureForm(Enum):
    """How a checkpoint has experts."""

    PLAIN = auto()
    """[outputs, inputs] of each or of all, without biases; gates and ups apart, or gates first."""
    INTERLEAVED = auto()
    """[inputs, outputs] of all, and biases: a gate, its up, and so on (gpt-oss)."""


@dataclass(frozen=True, slots=True)
class MixtureShape:
    """The experts of a layer."""

    experts: int
    chosen: int
    """For each token."""
    width: int
    """Of each expert's feed-forward block."""
    normalized: bool
    """Do the weights of those chosen add up to 1?"""
    form: MixtureForm = MixtureForm.PLAIN


class Mixture(Layer):
    """A router, and the experts that it chooses from; the kernels decide how these are run."""

    def __init__(self, kernels: Kernels, hidden: int, shape: MixtureShape, activation: str) -> None:
        self._shape = shape
        self._hidden = hidden
        self._sharding = kernels.sharding
        self._make = kernels.mix
        bias = shape.form is MixtureForm.INTERLEAVED
        self.gate = Linear(kernels, hidden, shape.experts, bias=bias)
        own = kernels.of_experts()
        self.experts = [
            GatedFeedForward(own, hidden, shape.width, activation, bias=bias, add_up=False)
            for _ in range(shape.experts)
        ]

    @cached_property
    def _mix(self) -> MixExperts:
        """Once the weights are there."""
        own = [
            Expert(expert.gate_up_proj.operation, expert.down_proj.operation)
            for expert in self.experts
        ]
        return self._make(own, Routing(self._shape.chosen, self._shape.normalized))

    @property
    def capturable(self) -> bool:
        """As ``Model.capturable``."""
        return self._mix.capturable

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[T, hidden] to a new tensor [T, hidden]."""
        return self._sharding.add_up(self._mix(x, self.gate(x)))

    def places(self, path: str = "") -> Iterator[Place]:
        """None: experts see some rows, in an order of their own."""
        yield from ()

    def slots(self, path: str = "") -> Iterator[Slot]:
        """The router, and the experts' matrices: in one tensor for all of them, or one each."""
        yield from self.gate.slots(f"{path}.gate")
        path = f"{path}.experts"
        own = [
            {slot.key.removeprefix(f"{path}.{n}."): slot for slot in expert.slots(f"{path}.{n}")}
            for n, expert in enumerate(self.experts)
        ]
        stacked = self._plain if self._shape.form is MixtureForm.PLAIN else self._interleaved
        yield from stacked(path, own)

    def _plain(self, path: str, own: list[dict[str, Slot]]) -> Iterator[Slot]:
        count, hidden, width = self._shape.experts, self._hidden, Units(self._shape.width)
        cut = self._sharding.cut
        ups = _Parts(own, ("gate_proj.weight", "up_proj.weight"))
        downs = _Parts(own, ("down_proj.weight",))
        shape = count, 2 * width.total, hidden
        yield Slot(f"{path}.gate_up_proj", shape, ups.fill, ups.slots, cut(1, width, width))
        shape = count, hidden, width.total
        yield Slot(f"{path}.down_proj", shape, downs.fill, downs.slots, cut(2, width))

    def _interleaved(self, path: str, own: list[dict[str, Slot]]) -> Iterator[Slot]:
        """Codes are upright: [experts · outputs, inputs], one expert below the other."""
        count, hidden, width = self._shape.experts, self._hidden, self._shape.width
        cut, pairs = self._sharding.cut, Units(width, 2)
        every_pair = self._sharding.cut(0, *[pairs] * count)
        ups = _Parts(own, ("gate_proj.weight", "up_proj.weight"), interleaved=True)
        downs = _Parts(own, ("down_proj.weight",))
        key = f"{path}.gate_up_proj"
        shape: tuple[int, ...] = 2 * width * count, hidden
        upright = Slot(key, shape, ups.fill_codes, cut=every_pair, takes_codes=True, matrices=count)
        shape = count, hidden, 2 * width
        yield Slot(key, shape, ups.fill_turned, ups.slots, cut(2, pairs), upright=upright)
        key = f"{path}.down_proj"
        shape = hidden * count, width
        columns = cut(1, Units(width))
        upright = Slot(key, shape, downs.fill_codes, cut=columns, takes_codes=True, matrices=count)
        shape = count, width, hidden
        yield Slot(key, shape, downs.fill_turned, downs.slots, columns, upright=upright)
        ups = _Parts(own, ("gate_proj.bias", "up_proj.bias"), interleaved=True)
        yield Slot(
            f"{path}.gate_up_proj_bias", (count, 2 * width), ups.fill, ups.slots, cut(1, pairs)
        )
        downs = _Parts(own, ("down_proj.bias",))
        yield Slot(f"{path}.down_proj_bias", (count, hidden), downs.fill, downs.slots)


class _Parts:
    """Slots of all experts that are one tensor in some checkpoints."""

    def __init__(
        self, own: list[dict[str, Slot]], names: tuple[str, ...], *, interleaved: bool = False
    ) -> None:
        """``names``: of each expert, one below the other, or ``interleaved`` row by row."""
        self._experts = [[slots[name] for name in names] for slots in own]
        self._interleaved = interleaved
        self.slots = tuple(slot for slots in self._experts for slot in slots)

    def fill(self, tensor: torch.Tensor) -> None:
        """From [experts, rows, ...]."""
        for slots, rows in zip(self._experts, tensor, strict=True):
            for slot, piece in zip(slots, self._pieces(slots, rows), strict=True):
                slot.fill(piece)

    def fill_turned(self, tensor: torch.Tensor) -> None:
        """From [experts, columns, rows]."""
        self.fill(tensor.transpose(1, 2))

    def fill_codes(self, codes: Quantized) -> None:
        """From [experts · rows, columns]."""
        each = codes.shape[0] // len(self._experts)
        for number, slots in enumerate(self._experts):
            rows = torch.arange(number * each, (number + 1) * each)
            for slot, piece in zip(slots, self._pieces(slots, rows), strict=True):
                slot.fill(codes.taken(piece))

    def _pieces(self, slots: list[Slot], rows: torch.Tensor) -> Sequence[torch.Tensor]:
        if self._interleaved:
            return [rows[first :: len(slots)] for first in range(len(slots))]
        return torch.split(rows, [slot.own_shape[0] for slot in slots])
