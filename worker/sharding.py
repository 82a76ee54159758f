"""How a model is cut between the shards of a group (tensor parallelism, Shoeybi et al. 2019).

Layers declare whole sizes, those of the checkpoint; here is which part of each this process has,
and what the parts are put together with. Knows no processes and no sockets: those are behind the
two callables. A model in one process is the only shard of its group.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Units:
    """A dimension that may be cut between its units only, such as heads of ``width`` numbers."""

    count: int
    width: int = 1

    @property
    def total(self) -> int:
        """Numbers of the whole dimension."""
        return self.count * self.width


@dataclass(frozen=True, slots=True)
class Cut:
    """A shard's part of a checkpoint tensor: spans of one dimension, one behind the other."""

    dimension: int
    spans: tuple[tuple[int, int], ...]
    """Start and stop of each."""

    @property
    def size(self) -> int:
        """Of the part, in its dimension."""
        return sum(stop - start for start, stop in self.spans)


def _as_it_is(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


@dataclass(frozen=True, slots=True)
class Sharding:
    """A shard's place in its group."""

    rank: int = 0
    size: int = 1
    add_up: Callable[[torch.Tensor], torch.Tensor] = _as_it_is
    """The sum over all shards, in every one of them: a new tensor, or that given (contiguous)."""
    gather: Callable[[torch.Tensor], torch.Tensor] = _as_it_is
    """Shards' columns [R, n] side by side, [R, size · n], in the first shard; others get any."""

    def span(self, units: Units) -> tuple[int, int]:
        """First number of this shard's part of a dimension, and the one after its last.

        Units go to shards in order, equally many to each. Where there are fewer than shards, each
        unit goes to several neighbours. ``refusal`` says whether that is possible.
        """
        each = max(1, units.count // self.size)
        first = self.rank * units.count // self.size
        return first * units.width, (first + each) * units.width

    def length(self, units: Units) -> int:
        """Numbers of this shard's part."""
        start, stop = self.span(units)
        return stop - start

    def copies(self, units: Units) -> int:
        """How many shards have each unit."""
        return max(1, self.size // units.count)

    def cut(self, dimension: int, *parts: Units) -> Cut | None:
        """Of a tensor whose dimension consists of these parts, side by side; None: all of it."""
        if self.size == 1:
            return None
        spans: list[tuple[int, int]] = []
        before = 0
        for units in parts:
            start, stop = self.span(units)
            spans.append((before + start, before + stop))
            before += units.total
        return Cut(dimension, tuple(spans))

    def entries(self, count: int) -> tuple[int, int]:
        """A shard's part of a vocabulary, of any size: the last shards may have fewer."""
        each = -(-count // self.size)
        return min(count, self.rank * each), min(count, (self.rank + 1) * each)

    def cut_entries(self, count: int) -> Cut | None:
        """The same, of the rows of a tensor; None: all of it."""
        return None if self.size == 1 else Cut(0, (self.entries(count),))


WHOLE = Sharding()
"""The only shard of a model in one process."""


def refusal(shards: int, *, heads: int, kv_heads: int, widths: dict[str, int]) -> str:
    """Why a model cannot be cut so, and what could be done instead; empty if it can.

    ``widths`` by name: those of feed-forward blocks.
    """
    possible = [
        count
        for count in range(1, heads + 1)
        if heads % count == 0
        and (kv_heads % count == 0 or count % kv_heads == 0)
        and all(width % count == 0 for width in widths.values())
    ]
    if shards in possible:
        return ""
    sizes = [f"{heads} attention heads", f"{kv_heads} key-value heads"]
    sizes += [f"{name} of {width}" for name, width in widths.items()]
    choices = ", ".join(str(count) for count in possible if count > 1)
    instead = f"--num-shard may be {choices}" if choices else "it runs with --num-shard 1 only"
    return f"the model cannot be split over {shards} shards ({', '.join(sizes)}): {instead}"
