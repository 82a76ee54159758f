"""A model with adapters that cannot be fooled: who has which changes what is said."""

import numpy as np
import torch

from tests.worker.driver import HistoryModel

NAMES = ("a", "b", "c")


class Plans:
    """A number of each row, and of its place: what is of other rows, or of another size, shows."""

    def room(self, rows):
        return 2 * rows

    def lay_out(self, adapters, rows):
        numbers = np.zeros((rows, 2), dtype=np.int64)
        for row, adapter in enumerate(adapters):
            numbers[row] = adapter + 1, rows
        return numbers.ravel()


class AdaptedModel(HistoryModel):
    """As without adapters, but that each adds to the state that logits are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.adapters = Plans()
        self.adapted: list[int] = []
        """Sequences with adapters, of each step."""
        self.wrong: list[str] = []
        """What steps have been told: an exception would have them repeated, one by one."""

    def forward(self, inputs, cache):
        hidden = super().forward(inputs, cache)
        numbers = [1 + number for number in inputs.adapters_host]
        if inputs.adapter_plan is not None:
            sequences = len(inputs.lengths)
            numbers, sizes = inputs.adapter_plan.view(sequences, 2).T.tolist()
            if inputs.adapters_host or {size for size in sizes if size} != {sequences}:
                self.wrong.append(f"{sizes} of {sequences}, {inputs.adapters_host} on the host")
        self.adapted.append(np.count_nonzero(numbers))
        if inputs.is_adapted != bool(self.adapted[-1]):
            self.wrong.append(f"{numbers} is {inputs.is_adapted}")
        if not numbers:
            return hidden
        rows = torch.tensor(np.repeat(numbers, inputs.query_lengths_host))
        hidden[:, 0] += 100 * rows[inputs.logit_rows]
        return hidden

    def continuation(self, ids, count, adapter=""):
        known = list(ids)
        for _ in range(count):
            number, bad = self.state(known)
            number += 100 * (1 + NAMES.index(adapter)) if adapter else 0
            hidden = torch.tensor([[number, bad]], dtype=torch.float64)
            known.append(int(self.logits(hidden).argmax()))
        return known[len(ids) :]
