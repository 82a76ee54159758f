"""The tree that a model is: layers in layers, each attribute named as in the checkpoint.

Owns the correspondence of attributes and checkpoint keys; the loader walks it. Nothing is allocated
until a tensor is loaded, so a declaration costs nothing.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from worker.sharding import Cut


def _as_they_are(rows: torch.Tensor) -> torch.Tensor:
    return rows


@dataclass(frozen=True, slots=True)
class Slot:
    """The place of one checkpoint tensor, or of this shard's part of it."""

    key: str
    shape: tuple[int, ...]
    """Of the whole tensor."""
    fill: Callable[[Any], None]
    """Takes the part as the checkpoint has it (on the host, in its dtype), and copies it.

    ValueError where codes are to be made of it, and cannot be.
    """
    parts: tuple["Slot", ...] = ()
    """What it may be stored as instead."""
    cut: Cut | None = None
    """Which part; None: all of it."""
    takes_codes: bool = False
    """Whether ``fill`` takes ``Quantized``, too."""
    upright: "Slot | None" = None
    """Takes codes instead of this one, which the checkpoint has as [inputs, outputs] if plain."""
    matrices: int = 1
    """So many, of as many outputs, one below the other; codes of theirs may say so."""

    @property
    def for_codes(self) -> "Slot | None":
        """Takes the same matrix, [outputs, inputs], as ``Quantized``; None: nothing does."""
        return self if self.takes_codes else self.upright

    @property
    def own_shape(self) -> tuple[int, ...]:
        """Of what ``fill`` takes."""
        if self.cut is None:
            return self.shape
        dimension = self.cut.dimension
        return (*self.shape[:dimension], self.cut.size, *self.shape[dimension + 1 :])


@dataclass(frozen=True, slots=True)
class Place:
    """Where low-rank pairs may be added: a weight of the checkpoint, in the layer that has it."""

    key: str
    """The weight's, without ``.weight``."""
    shape: tuple[int, int]
    """Of the whole weight: outputs, inputs."""
    cut: Cut | None
    """Which part of it is here."""
    start: int
    """The layer's output that its first row makes, of those here."""
    layer: Any
    """A ``Matrix``."""
    order: Callable[[torch.Tensor], torch.Tensor] = _as_they_are
    """The weight's rows here, in the order of the layer's outputs."""


class Layer:
    """A node. Leaves override ``slots``; others have layers, or lists of layers, as attributes."""

    def slots(self, path: str = "") -> Iterator[Slot]:
        """Every checkpoint tensor of this part of the tree; ``path`` is its own dotted name."""
        for name, child in self._children(path):
            yield from child.slots(name)

    def places(self, path: str = "") -> Iterator[Place]:
        """Every weight of this part of the tree that sees all rows of a step, as they are."""
        for name, child in self._children(path):
            yield from child.places(name)

    def _children(self, path: str) -> Iterator[tuple[str, "Layer"]]:
        prefix = f"{path}." if path else ""
        for name, child in vars(self).items():
            if isinstance(child, Layer):
                yield prefix + name, child
            elif isinstance(child, list):
                for number, item in enumerate(child):
                    if isinstance(item, Layer):
                        yield f"{prefix}{name}.{number}", item
