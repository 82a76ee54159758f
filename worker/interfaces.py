"""What the engine asks of a model, and nothing more: tests bring models of their own.

Runs in the worker. Knows nothing of how a model is made.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from worker.inputs import StepInputs
from worker.transfers import Integers


class Configuration(Protocol):
    """What the engine reads of a model's configuration."""

    @property
    def vocab_size(self) -> int:
        """Width of the logits."""

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in."""


class AdapterPlans(Protocol):
    """Who has which adapter, in numbers for the device: as many for all steps of so many rows."""

    def room(self, rows: int) -> int:
        """How many; for fewer rows no more."""

    def lay_out(self, adapters: Sequence[int], rows: int) -> Integers:
        """[room] int64, of a step whose first rows have these, -1 is none, and the others none.

        Zeros, for any number of rows: nobody has one.
        """


class Model(Protocol):
    """What the engine asks of a model."""

    @property
    def configuration(self) -> Configuration:
        """Fixed."""

    @property
    def shares_prefixes(self) -> bool:
        """Whether a sequence can begin with keys and values that another one has written."""

    @property
    def adapters(self) -> AdapterPlans | None:
        """Tell the device who has which of its adapters; None: it has none."""

    def release(self, sequence: int) -> None:
        """The sequence with this number in ``inputs.sequences_host`` is over."""

    def forward(self, inputs: StepInputs, cache: Any) -> torch.Tensor:
        """Hidden rows [R, hidden] for ``inputs.logit_rows``; writes keys and values."""

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[R, vocabulary] float32, the caller's to overwrite."""


class CacheMemory(Protocol):
    """Who minds the memory of keys and values: is told when it is used."""

    def use(self, block: int) -> None:
        """Blocks up to this one may be written to from now on."""

    def rest(self) -> None:
        """Nobody computes, until the next use."""


class Unmindful:
    """As ``CacheMemory``: all of it has been there from the beginning, as on a GPU."""

    def use(self, block: int) -> None:
        """Nothing."""

    def rest(self) -> None:
        """Nothing."""


UNMINDFUL = Unmindful()
