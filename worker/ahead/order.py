"""One step as all shards of a model compute it: numbers that the host knows, for devices that know
the rest.

Runs in the worker. Made by the runner of the leader and followed by every shard: what is not in
here (last tokens, lengths, block tables) each has in the state of its own device. Knows nothing of
sockets.
"""

from dataclasses import dataclass

from worker.batch import Assembly
from worker.transfers import Integers


@dataclass(frozen=True, slots=True)
class StateChanges:
    """What the host has noted since the last step."""

    slots: int
    """Of the state's tensors: another number, other tensors."""
    width: int
    """Blocks of a slot; likewise."""
    numbers: Integers
    """[2, n]: places in the state, and what stands there from now on."""


@dataclass(frozen=True, slots=True)
class Order:
    """One step."""

    changes: StateChanges
    chosen: int
    """The first so many hidden rows are those whose next token is chosen."""
    scored: int
    """The next so many are rows of prompts that are scored."""
    size: int = 0
    """Rows that are computed where all decode: those of ``chosen``, and padding; 0: it is mixed."""
    lengths: tuple[int, ...] = ()
    """Of the rows where all decode, each one's token included, as the host knows them."""
    adapted: bool = False
    """Where all decode: whether some have adapters, which the state knows."""
    drafts: int = 0
    """Where all decode: the last so many of ``chosen`` come after drafts. If any do, the host alone
    learns which are right; the changes of the next order say so to all."""
    assembly: Assembly | None = None
    """Of a mixed step: its inputs but for the last tokens of those that decode, which come first
    among those whose next token is chosen."""
    slots: tuple[int, ...] = ()
    """Of a mixed step: those whose next token is chosen."""
