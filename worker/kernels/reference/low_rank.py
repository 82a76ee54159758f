"""Reference kernel: low-rank pairs, one adapter after another, each on its rows.

In float32 whatever the model's dtype. PERF: one row of 576 numbers, rank 48, 960 outputs, on one
core of AMD Zen 4: 12 µs with its conversions, 39 µs in bfloat16, whose products are made for large
matrices.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name

from worker.kernels.low_rank import AddLowRank, LowRank
from worker.transfers import Integers, send

Plan = list[tuple[int, torch.Tensor | None]] | torch.Tensor
"""Numbers of adapters and their rows, [n] int64; None: all rows. Or, of fixed shape, [T] int64: the
number of each row's adapter and 1 more, 0 for none."""


@dataclass(frozen=True, slots=True)
class ReferenceLowRank:
    """As ``LowRankKernel``, in plain torch."""

    def plan(self, adapters: Integers, device: torch.device) -> Plan:
        """As ``LowRankKernel.plan``."""
        numbers = [int(number) for number in np.unique(adapters) if number >= 0]
        if len(numbers) == 1 and bool((adapters == numbers[0]).all()):
            return [(numbers[0], None)]
        found = [
            (number, torch.from_numpy(np.flatnonzero(adapters == number))) for number in numbers
        ]
        return [(number, send(rows, device)) for number, rows in found]

    def room(self, rows: int, adapters: int) -> int:
        """As ``LowRankKernel.room``."""
        return rows

    def lay_out(self, adapters: Integers, room: int) -> Integers:
        """As ``LowRankKernel.lay_out``."""
        return adapters + 1

    def laid_out(self, numbers: torch.Tensor, rows: int) -> Plan:
        """As ``LowRankKernel.laid_out``."""
        return numbers

    def pack(self, pairs: Sequence[LowRank | None]) -> AddLowRank:
        """As ``LowRankKernel.pack``."""
        kept = [None if pair is None else (pair.down.float(), pair.up.float()) for pair in pairs]

        def add(y: torch.Tensor, x: torch.Tensor, plan: Plan) -> None:
            if isinstance(plan, torch.Tensor):
                add_to_own(y, x, plan)
                return
            for number, rows in plan:
                pair = kept[number]
                if pair is None:
                    continue
                down, up = pair
                own = x if rows is None else x.index_select(0, rows)
                more = F.linear(F.linear(own.float(), down), up)
                if rows is None:
                    y.add_(more)
                else:
                    y.index_add_(0, rows, more.to(y.dtype))

        def add_to_own(y: torch.Tensor, x: torch.Tensor, numbers: torch.Tensor) -> None:
            """What each pair makes of all rows, to those that have it."""
            for number, pair in enumerate(kept, 1):
                if pair is not None:
                    down, up = pair
                    others = (numbers != number)[:, None]
                    y.add_(F.linear(F.linear(x.float(), down).masked_fill_(others, 0.0), up))

        return add
