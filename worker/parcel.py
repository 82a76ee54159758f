"""What a step sends to its device, gathered from all who have something: one transfer, or none.

Runs in the worker. Whoever has numbers adds them and keeps what it gets for them: the numbers on
the device, once the parcel has been sent. Knows nothing of what they mean.
"""

from collections.abc import Sequence

import numpy as np
import torch

from worker.transfers import Integers, Transfers


class Sent:
    """Numbers that go with a parcel."""

    __slots__ = ("_floats", "_tensor")

    def __init__(self, floats: int | None) -> None:
        """``floats``: so many, packed two to an integer; None: they are integers."""
        self._floats = floats
        self._tensor: torch.Tensor | None = None

    @property
    def there(self) -> bool:
        """Whether they have been sent."""
        return self._tensor is not None

    @property
    def tensor(self) -> torch.Tensor:
        """On the device: the same tensor each time."""
        assert self._tensor is not None, "the parcel has not been sent"
        return self._tensor

    def arrive(self, tensor: torch.Tensor) -> None:
        """As int64, which the numbers travel as."""
        if self._floats is not None:
            tensor = tensor.view(torch.float32)[: self._floats]
        self._tensor = tensor


class Parcel:
    """One step's."""

    def __init__(self) -> None:
        self._arrays: list[Integers] = []
        self._sent: list[Sent] = []

    def integers(self, values: Sequence[int] | Integers) -> Sent:
        """As int64, in the shape of the array; [n] of a sequence."""
        return self._add(np.asarray(values, dtype=np.int64), Sent(None))

    def floats(self, values: Sequence[float]) -> Sent:
        """[n] float32."""
        packed = np.zeros(-(-len(values) // 2), dtype=np.int64)
        packed.view(np.float32)[: len(values)] = values
        return self._add(packed, Sent(len(values)))

    def send(self, transfers: Transfers) -> None:
        """Everything; nothing is transferred if nothing has been added."""
        if not self._arrays:
            return
        for sent, tensor in zip(self._sent, transfers.upload(self._arrays), strict=True):
            sent.arrive(tensor)

    def _add(self, array: Integers, sent: Sent) -> Sent:
        self._arrays.append(array)
        self._sent.append(sent)
        return sent
