"""A mixture of experts in the place of a feed-forward block.

Runs in the worker. Owns the router and the experts, which are feed-forward blocks, and where their
weights come from; what goes to whom is the kernels' business.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial

import torch

from worker.kernels.mixture import Expert, MixExperts, Routing
from worker.kernels.select import Kernels
from worker.layers.feedforward import GatedFeedForward
from worker.layers.layer import Layer, Place, Slot
from worker.layers.linear import Linear
from worker.sharding import Cut, Units


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


class Mixture(Layer):
    """A router, and the experts that it chooses from; the kernels decide how these are run."""

    def __init__(self, kernels: Kernels, hidden: int, shape: MixtureShape, activation: str) -> None:
        self._shape = shape
        self._hidden = hidden
        self._sharding = kernels.sharding
        self._make = kernels.mix
        self.gate = Linear(kernels, hidden, shape.experts, bias=False)
        own = kernels.of_experts()
        self.experts = [
            GatedFeedForward(own, hidden, shape.width, activation, add_up=False)
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
        own = [list(expert.slots(f"{path}.experts.{n}")) for n, expert in enumerate(self.experts)]
        ups = [slots[:-1] for slots in own]
        downs = [slots[-1:] for slots in own]
        count, hidden, width = self._shape.experts, self._hidden, Units(self._shape.width)
        shape, cut = (count, 2 * width.total, hidden), self._sharding.cut(1, width, width)
        yield _stacked(f"{path}.experts.gate_up_proj", shape, ups, cut)
        shape, cut = (count, hidden, width.total), self._sharding.cut(2, width)
        yield _stacked(f"{path}.experts.down_proj", shape, downs, cut)


def _stacked(key: str, shape: tuple[int, ...], own: list[list[Slot]], cut: Cut | None) -> Slot:
    parts = tuple(slot for slots in own for slot in slots)
    return Slot(key, shape, partial(_fill, own), parts, cut)


def _fill(own: list[list[Slot]], tensor: torch.Tensor) -> None:
    """Each expert's slots, one below the other, from [experts, rows, columns]."""
    for slots, matrix in zip(own, tensor, strict=True):
        pieces = torch.split(matrix, [slot.own_shape[0] for slot in slots])
        for slot, rows in zip(slots, pieces, strict=True):
            slot.fill(rows)
