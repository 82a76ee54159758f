"""Token embeddings."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name

from worker.kernels.select import Kernels
from worker.layers.layer import Layer, Slot


class Embedding(Layer):
    """A table of vectors.

    Rows are looked up, never multiplied, so the table stays in the checkpoint's dtype where that is
    the smaller one; the rows are converted.
    """

    def __init__(
        self, kernels: Kernels, entries: int, size: int, scale: float | None = None
    ) -> None:
        """``scale`` multiplies the rows, rounded to the model's dtype."""
        self._kernels = kernels
        self._scale = None
        if scale is not None:
            self._scale = torch.tensor(scale, dtype=kernels.dtype).item()
        self._shape = (entries, size)
        self.weight: torch.Tensor  # [entries, size]

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        """Ids [T] int64 to a new tensor [T, size] in the model's dtype."""
        rows = F.embedding(ids, self.weight).to(self._kernels.dtype)
        return rows if self._scale is None else rows.mul_(self._scale)

    def slots(self, path: str = "") -> Iterator[Slot]:
        """The table."""
        yield Slot(f"{path}.weight", self._shape, self._fill)

    def _fill(self, tensor: torch.Tensor) -> None:
        dtype = min(tensor.dtype, self._kernels.dtype, key=lambda kind: kind.itemsize)
        if dtype.itemsize == self._kernels.dtype.itemsize:
            dtype = self._kernels.dtype
        self.weight = torch.empty(self._shape, dtype=dtype, device=self._kernels.device)
        self.weight.copy_(tensor)
