"""Linear layers, alone and fused: several of the checkpoint's in one matrix."""

from collections.abc import Iterator, Mapping
from functools import partial

import torch

from worker.kernels.reference.linear import LinearOperation
from worker.kernels.select import Kernels
from worker.layers.layer import Layer, Slot


class FusedLinear(Layer):
    """Linear layers that share their input, computed as one: ``outputs`` side by side.

    Its attribute's own name is not in the checkpoint; the names in ``outputs`` are, in its place.
    """

    def __init__(
        self, kernels: Kernels, inputs: int, outputs: Mapping[str, int], *, bias: bool
    ) -> None:
        self._kernels = kernels
        self._inputs = inputs
        self._outputs = dict(outputs)
        self._bias = bias
        self._tensors: dict[str, torch.Tensor] = {}
        self._missing = len(self._outputs) * (2 if bias else 1)
        self._apply: LinearOperation

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[T, inputs] to a new tensor [T, sum of outputs]."""
        return self._apply(x)

    @property
    def operation(self) -> LinearOperation:
        """What has been made of the weights, once they are all there."""
        return self._apply

    def slots(self, path: str = "") -> Iterator[Slot]:
        """One weight, and one bias where there are any, per output."""
        parent = path.rpartition(".")[0]
        prefix = f"{parent}." if parent else ""
        start = 0
        for name, rows in self._outputs.items():
            yield from self._part(prefix + name, start, rows)
            start += rows

    def _part(self, path: str, start: int, rows: int) -> Iterator[Slot]:
        fill = partial(self._fill, "weight", start, rows)
        yield Slot(f"{path}.weight", (rows, self._inputs), fill)
        if self._bias:
            fill = partial(self._fill, "bias", start, rows)
            yield Slot(f"{path}.bias", (rows,), fill)

    def _fill(self, kind: str, start: int, rows: int, tensor: torch.Tensor) -> None:
        whole = self._tensors.get(kind)
        if whole is None:
            total = sum(self._outputs.values())
            shape = (total, self._inputs) if kind == "weight" else (total,)
            whole = torch.empty(shape, dtype=self._kernels.dtype, device=self._kernels.device)
            self._tensors[kind] = whole
        whole[start : start + rows].copy_(tensor)
        self._missing -= 1
        if not self._missing:
            self._finish(self._tensors.pop("weight"), self._tensors.pop("bias", None))

    def _finish(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self._apply = self._kernels.pack_linear(weight, bias)


class Linear(FusedLinear):
    """A linear layer of the checkpoint."""

    def __init__(self, kernels: Kernels, inputs: int, outputs: int, *, bias: bool) -> None:
        super().__init__(kernels, inputs, {"": outputs}, bias=bias)

    def slots(self, path: str = "") -> Iterator[Slot]:
        """The weight, and the bias if there is one, under the attribute's own name."""
        yield from self._part(path, 0, self._outputs[""])

    def tie(self, weight: torch.Tensor) -> None:
        """Use another layer's weight [outputs, inputs]: its memory too, where the kernels can."""
        self._finish(weight.to(self._kernels.dtype), None)


class OutputLinear(Linear):
    """The layer of logits, which come in float32: [T, inputs] to a new tensor [T, outputs]."""

    def _finish(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self._apply = self._kernels.pack_output(weight, bias)


class TransposedLinear(Linear):
    """A linear layer that the checkpoint has as [inputs, outputs], with a bias (GPT-2)."""

    def __init__(self, kernels: Kernels, inputs: int, outputs: int) -> None:
        super().__init__(kernels, inputs, outputs, bias=True)

    def slots(self, path: str = "") -> Iterator[Slot]:
        """As the checkpoint has them."""
        for slot in super().slots(path):
            if slot.key.endswith(".weight"):
                yield Slot(slot.key, slot.shape[::-1], partial(_transposed, slot))
            else:
                yield slot


class HeadwiseLinear(Linear):
    """Projections side by side that the checkpoint has head by head (GPT-NeoX).

    The checkpoint's rows are [heads, parts, head_dim], the output's are [parts, heads, head_dim].
    """

    def __init__(
        self, kernels: Kernels, inputs: int, heads: int, parts: int, head_dim: int, *, bias: bool
    ) -> None:
        super().__init__(kernels, inputs, heads * parts * head_dim, bias=bias)
        self._rows = (heads, parts, head_dim)

    def slots(self, path: str = "") -> Iterator[Slot]:
        """As the checkpoint has them."""
        for slot in super().slots(path):
            yield Slot(slot.key, slot.shape, partial(_by_parts, slot, self._rows))


def _transposed(slot: Slot, tensor: torch.Tensor) -> None:
    slot.fill(tensor.T)


def _by_parts(slot: Slot, rows: tuple[int, int, int], tensor: torch.Tensor) -> None:
    slot.fill(tensor.view(*rows, *tensor.shape[1:]).transpose(0, 1).reshape(tensor.shape))
