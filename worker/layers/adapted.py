"""Linear layers to which a step's adapters add: one object knows who they are, for all layers.

Runs in the worker. A step in which nobody has an adapter finds that out and goes on as ever. Knows
nothing of files.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from worker.inputs import StepInputs
from worker.kernels.low_rank import AddLowRank, LowRankKernel
from worker.kernels.reference.linear import LinearOperation, opened
from worker.transfers import Integers


class StepAdapters:
    """Which rows have which adapter in the forward pass that is under way.

    Shared by all layers of a model, which are called with nothing but rows.
    """

    def __init__(self, kernel: LowRankKernel, device: torch.device, count: int) -> None:
        """Of ``count`` adapters."""
        self.kernel = kernel
        self._device = device
        self._count = count
        self.plan: Any | None = None
        """The kernel's; None: no row has one."""

    def room(self, rows: int) -> int:
        """As ``AdapterPlans.room``."""
        return self.kernel.room(rows, self._count)

    def lay_out(self, adapters: Sequence[int], rows: int) -> Integers:
        """As ``AdapterPlans.lay_out``."""
        whole = np.full(rows, -1, dtype=np.int64)
        whole[: len(adapters)] = adapters
        return self.kernel.lay_out(whole, self.room(rows))

    @contextmanager
    def of(self, inputs: StepInputs) -> Iterator[None]:
        """Within: those of this step, which ``is_adapted``. All layers see all rows."""
        if inputs.adapter_plan is not None:
            self.plan = self.kernel.laid_out(inputs.adapter_plan, len(inputs.token_ids))
        else:
            numbers = np.array(inputs.adapters_host, dtype=np.int64)
            rows = np.repeat(numbers, inputs.query_lengths_host)
            self.plan = self.kernel.plan(rows, self._device)
        try:
            yield
        finally:
            self.plan = None


class Adapted:
    """A linear operation and the low-rank pairs beside it; as ``LinearOperation``."""

    def __init__(self, operation: LinearOperation, add: AddLowRank, adapters: StepAdapters) -> None:
        self._operation = operation
        self._add = add
        self._adapters = adapters
        parts = opened(operation)
        self._sums = operation if parts is None else parts.linear
        self._after = None if parts is None else parts.activation

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[T, inputs] to a new tensor [T, outputs], or what an activation makes of that."""
        plan = self._adapters.plan
        if plan is None:
            return self._operation(x)
        y = self._sums(x)
        self._add(y, x, plan)
        return y if self._after is None else self._after(y)
