"""Linear layers, whole or cut between shards, alone and fused: several in one matrix.

Column-parallel ones cut their outputs, row-parallel ones their inputs: one of each, one behind the
other, needs a single sum over the shards.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name

from worker.kernels.reference.linear import LinearOperation, PackLinear
from worker.kernels.select import Kernels
from worker.layers.layer import Layer, Slot
from worker.sharding import Cut, Units


class Matrix(Layer):
    """A shard's weight [outputs, inputs], with or without a bias, of one tensor or several."""

    def __init__(
        self,
        kernels: Kernels,
        inputs: int,
        outputs: int,
        *,
        bias: bool,
        weights: int = 1,
        pack: PackLinear | None = None,
    ) -> None:
        """``weights``: how many tensors it consists of, one below the other.

        ``pack``: what makes its operation, if not the kernels' ``pack_linear``.
        """
        self._kernels = kernels
        self._pack = pack or kernels.pack_linear
        self._inputs = inputs
        self._outputs = outputs
        self._bias = bias
        self._tensors: dict[str, torch.Tensor] = {}
        self._missing = weights * (2 if bias else 1)
        self._apply: LinearOperation

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[T, inputs] to a new tensor [T, outputs]."""
        return self._apply(x)

    @property
    def operation(self) -> LinearOperation:
        """What has been made of the weights, once they are all there."""
        return self._apply

    def _slots(
        self, path: str, shape: tuple[int, int], cut: Cut | None, start: int = 0
    ) -> Iterator[Slot]:
        """A weight of the checkpoint [outputs, inputs], and its bias, from row ``start`` on."""
        yield Slot(f"{path}.weight", shape, partial(self._fill, "weight", start), cut=cut)
        if self._bias:
            rows = cut if cut is not None and cut.dimension == 0 else None
            yield Slot(f"{path}.bias", shape[:1], partial(self._fill, "bias", start), cut=rows)

    def _fill(self, kind: str, start: int, tensor: torch.Tensor) -> None:
        kernels = self._kernels
        shape = (self._outputs, self._inputs) if kind == "weight" else (self._outputs,)
        complete = tensor.shape == shape and tensor.dtype == kernels.dtype
        if kernels.repacks and complete and kind == "weight":
            self._tensors[kind] = tensor  # PERF: read where the file is mapped, not copied first
        else:
            whole = self._tensors.get(kind)
            if whole is None:
                whole = torch.empty(shape, dtype=kernels.dtype, device=kernels.device)
                self._tensors[kind] = whole
            whole[start : start + len(tensor)].copy_(tensor)
        self._missing -= 1
        if not self._missing:
            self._finish(self._tensors.pop("weight"), self._tensors.pop("bias", None))

    def _finish(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self._apply = self._pack(weight, bias)


class Linear(Matrix):
    """One that every shard has whole."""

    def slots(self, path: str = "") -> Iterator[Slot]:
        """The weight, and the bias if there is one."""
        yield from self._slots(path, (self._outputs, self._inputs), None)


class ColumnParallelLinear(Matrix):
    """Outputs are cut, in each of the ``parts`` that they consist of."""

    def __init__(
        self,
        kernels: Kernels,
        inputs: int,
        *parts: Units,
        bias: bool,
        pack: PackLinear | None = None,
    ) -> None:
        """``pack``: as ``Matrix``."""
        self._parts = parts
        own = sum(kernels.sharding.length(units) for units in parts)
        super().__init__(kernels, inputs, own, bias=bias, pack=pack)

    def slots(self, path: str = "") -> Iterator[Slot]:
        """The weight, and the bias if there is one."""
        rows = sum(units.total for units in self._parts)
        cut = self._kernels.sharding.cut(0, *self._parts)
        yield from self._slots(path, (rows, self._inputs), cut)


class FusedLinear(Matrix):
    """Column-parallel ones that share their input, computed as one: ``outputs`` side by side.

    Its attribute's own name is not in the checkpoint; the names in ``outputs`` are, in its place.
    """

    def __init__(
        self,
        kernels: Kernels,
        inputs: int,
        outputs: Mapping[str, Units],
        *,
        bias: bool,
        pack: PackLinear | None = None,
    ) -> None:
        """``pack``: as ``Matrix``."""
        self._named = dict(outputs)
        own = sum(kernels.sharding.length(units) for units in outputs.values())
        super().__init__(kernels, inputs, own, bias=bias, weights=len(outputs), pack=pack)

    def slots(self, path: str = "") -> Iterator[Slot]:
        """One weight, and one bias where there are any, per output."""
        sharding = self._kernels.sharding
        parent = path.rpartition(".")[0]
        prefix = f"{parent}." if parent else ""
        start = 0
        for name, units in self._named.items():
            shape = (units.total, self._inputs)
            yield from self._slots(prefix + name, shape, sharding.cut(0, units), start)
            start += sharding.length(units)


class RowParallelLinear(Matrix):
    """Inputs are cut: every shard computes with its part, and the results are added up."""

    def __init__(
        self,
        kernels: Kernels,
        inputs: Units,
        outputs: int,
        *,
        bias: bool,
        add_up: bool = True,
    ) -> None:
        """Without ``add_up`` that is the caller's business."""
        self._units = inputs
        self._adds_up = add_up and kernels.sharding.size > 1
        super().__init__(kernels, kernels.sharding.length(inputs), outputs, bias=bias)

    def slots(self, path: str = "") -> Iterator[Slot]:
        """The weight, and the bias if there is one."""
        cut = self._kernels.sharding.cut(1, self._units)
        yield from self._slots(path, (self._outputs, self._units.total), cut)

    def _finish(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        sharding = self._kernels.sharding
        # The bias belongs into the sum once.
        apply = self._pack(weight, bias if sharding.rank == 0 else None)
        add_up = sharding.add_up
        self._apply = (lambda x: add_up(apply(x))) if self._adds_up else apply


class OutputLinear(Matrix):
    """From hidden rows to logits, in float32; the vocabulary is cut, the first shard gets all."""

    def __init__(self, kernels: Kernels, inputs: int, vocabulary: int) -> None:
        self._vocabulary = vocabulary
        start, stop = kernels.sharding.entries(vocabulary)
        super().__init__(kernels, inputs, stop - start, bias=False, pack=kernels.pack_output)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[R, inputs] to a new tensor [R, vocabulary] in the first shard; in others it is any."""
        sharding = self._kernels.sharding
        if sharding.size == 1:
            return self._apply(x)
        missing = -(-self._vocabulary // sharding.size) - self._outputs
        own = self._apply(x)
        if missing:  # only the last shards have fewer
            own = F.pad(own, (0, missing))
        return sharding.gather(own)[:, : self._vocabulary]

    def slots(self, path: str = "") -> Iterator[Slot]:
        """The weight."""
        cut = self._kernels.sharding.cut_entries(self._vocabulary)
        yield from self._slots(path, (self._vocabulary, self._inputs), cut)

    def tie(self, weight: torch.Tensor) -> None:
        """Use this shard's part of the embedding: its memory too, where the kernels can."""
        self._finish(weight.to(self._kernels.dtype), None)


class Transposed(Layer):
    """A linear layer that the checkpoint has as [inputs, outputs] (GPT-2)."""

    def __init__(self, linear: Matrix) -> None:
        self._linear = linear

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[T, inputs] to a new tensor [T, outputs]."""
        return self._linear(x)

    @property
    def operation(self) -> LinearOperation:
        """As ``Matrix.operation``."""
        return self._linear.operation

    def slots(self, path: str = "") -> Iterator[Slot]:
        """As the checkpoint has them."""
        for slot in self._linear.slots(path):
            if len(slot.shape) == 1:
                yield slot
                continue
            cut = slot.cut and replace(slot.cut, dimension=1 - slot.cut.dimension)
            yield Slot(slot.key, slot.shape[::-1], partial(_transposed, slot), cut=cut)


class HeadwiseLinear(ColumnParallelLinear):
    """Projections side by side that the checkpoint has head by head (GPT-NeoX).

    The checkpoint's rows are [heads, parts, head_dim], the output's are [parts, heads, head_dim].
    """

    def __init__(
        self, kernels: Kernels, inputs: int, heads: int, parts: int, head_dim: int, *, bias: bool
    ) -> None:
        super().__init__(kernels, inputs, Units(heads, parts * head_dim), bias=bias)
        self._row_shape = (-1, parts, head_dim)

    def slots(self, path: str = "") -> Iterator[Slot]:
        """As the checkpoint has them."""
        for slot in super().slots(path):
            yield replace(slot, fill=partial(_by_parts, slot, self._row_shape))


def _transposed(slot: Slot, tensor: torch.Tensor) -> None:
    slot.fill(tensor.T)


def _by_parts(slot: Slot, rows: tuple[int, int, int], tensor: torch.Tensor) -> None:
    slot.fill(tensor.view(*rows, *tensor.shape[1:]).transpose(0, 1).reshape(tensor.shape))
