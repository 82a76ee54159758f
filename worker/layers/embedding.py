"""Embeddings of tokens and of positions."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name

from worker.kernels.select import Kernels
from worker.layers.layer import Layer, Slot


class Embedding(Layer):
    """A table of vectors, which every shard has whole.

    Rows are looked up, never multiplied, so the table stays in the checkpoint's dtype where that is
    the smaller one; the rows are converted.
    """

    def __init__(self, kernels: Kernels, entries: int, size: int) -> None:
        self._kernels = kernels
        self._shape = (entries, size)
        self.weight: torch.Tensor  # [entries, size]

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        """Ids [T] int64 to a new tensor [T, size] in the model's dtype."""
        return F.embedding(ids, self.weight).to(self._kernels.dtype)

    def slots(self, path: str = "") -> Iterator[Slot]:
        """The table."""
        yield Slot(f"{path}.weight", self._shape, self._fill)

    def _fill(self, tensor: torch.Tensor) -> None:
        dtype = min(tensor.dtype, self._kernels.dtype, key=lambda kind: kind.itemsize)
        if dtype.itemsize == self._kernels.dtype.itemsize:
            dtype = self._kernels.dtype
        self.weight = torch.empty(tensor.shape, dtype=dtype, device=self._kernels.device)
        self.weight.copy_(tensor)


class VocabularyEmbedding(Embedding):
    """Of tokens: every shard has a part of the vocabulary, and the rows are added up."""

    def __init__(
        self, kernels: Kernels, entries: int, size: int, scale: float | None = None
    ) -> None:
        """``scale`` multiplies the rows, rounded to the model's dtype."""
        super().__init__(kernels, entries, size)
        self._start, self._stop = kernels.sharding.entries(entries)
        self._scale = None
        if scale is not None:
            self._scale = torch.tensor(scale, dtype=kernels.dtype).item()

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        """As ``Embedding.__call__``."""
        rows = super().__call__(ids) if self._kernels.sharding.size == 1 else self._added_up(ids)
        return rows if self._scale is None else rows.mul_(self._scale)

    def _added_up(self, ids: torch.Tensor) -> torch.Tensor:
        """The row of each id is in one shard; the others have zeros for it."""
        own = ids - self._start
        elsewhere = (own < 0) | (ids >= self._stop)
        if self._start == self._stop:
            rows = self.weight.new_zeros((len(ids), self._shape[1]), dtype=self._kernels.dtype)
        else:
            rows = super().__call__(own.masked_fill_(elsewhere, 0))
            rows.masked_fill_(elsewhere[:, None], 0.0)
        return self._kernels.sharding.add_up(rows)

    def slots(self, path: str = "") -> Iterator[Slot]:
        """Only a part of the table."""
        cut = self._kernels.sharding.cut_entries(self._shape[0])
        yield Slot(f"{path}.weight", self._shape, self._fill, cut=cut)
