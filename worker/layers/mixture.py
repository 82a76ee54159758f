"""A mixture of experts in the place of a feed-forward block.

Runs in the worker. Owns the choice of experts and which tokens go to which; the experts are
feed-forward blocks. What a token gets depends on that token alone, not on the others of the step.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch

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
    """Sparse mixture (Shazeer et al. 2017): the most likely experts of a softmax, weighted by it.

    The experts of a step run one after another, each on its tokens; a GPU waits for the host to
    read how many those are.
    """

    def __init__(self, kernels: Kernels, hidden: int, shape: MixtureShape, activation: str) -> None:
        self._shape = shape
        self._hidden = hidden
        self._sharding = kernels.sharding
        self.gate = Linear(kernels, hidden, shape.experts, bias=False)
        self.experts = [
            GatedFeedForward(kernels, hidden, shape.width, activation, add_up=False)
            for _ in range(shape.experts)
        ]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[T, hidden] to a new tensor [T, hidden]."""
        chosen = self._shape.chosen
        likely = torch.softmax(self.gate(x), dim=-1, dtype=torch.float32)
        weights, experts = likely.topk(chosen, dim=-1)  # [T, chosen]
        if self._shape.normalized:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        experts, order = experts.flatten().sort(stable=True)
        counts = experts.bincount(minlength=self._shape.experts).tolist()
        inputs = torch.split(x.index_select(0, order // chosen), counts)
        outputs = torch.cat(
            [expert(rows) for expert, rows in zip(self.experts, inputs, strict=True) if len(rows)]
            or [x]
        )
        # Back in the order of tokens, so that each is summed in the order of its own choice.
        mixed = torch.empty_like(outputs).index_copy_(0, order, outputs)
        mixed = mixed.view(-1, chosen, self._hidden).float().mul_(weights[:, :, None])
        return self._sharding.add_up(mixed.sum(dim=1).to(x.dtype))

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
