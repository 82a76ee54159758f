"""Linear layers, whole or cut between shards, alone and fused: several in one matrix.

Column-parallel ones cut their outputs, row-parallel ones their inputs: one of each, one behind the
other, needs a single sum over the shards.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name

from worker.kernels.low_rank import AddLowRank
from worker.kernels.reference.linear import LinearOperation, PackLinear
from worker.kernels.reference.quantized import Quantized, Weight, joined
from worker.kernels.select import Encode, Kernels
from worker.layers.adapted import Adapted, StepAdapters
from worker.layers.layer import Layer, Place, Slot
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
        encode: Encode | None = None,
    ) -> None:
        """``weights``: how many tensors it consists of, one below the other.

        ``pack``: what makes its operation, if not the kernels' ``pack_linear``. ``encode``: what
        makes codes of a weight that is none.
        """
        self._kernels = kernels
        self._encode = encode
        self._pack = pack or kernels.pack_linear
        self.inputs = inputs
        self.outputs = outputs
        """Of this shard."""
        self._bias = bias
        self._tensors: dict[str, torch.Tensor] = {}
        self._codes: dict[int, Quantized] = {}
        self._missing = weights * (2 if bias else 1)
        self._own: LinearOperation
        """Of this shard's weights."""
        self._apply: LinearOperation
        self.weight_bytes = 0
        """Of its weight as it is kept; 0 until it is there."""
        self.is_coded = False
        """Whether that is codes of a few bits."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[T, inputs] to a new tensor [T, outputs]."""
        return self._apply(x)

    @property
    def operation(self) -> LinearOperation:
        """What has been made of the weights, once they are all there."""
        return self._apply

    def adapt(self, add: AddLowRank, adapters: StepAdapters) -> None:
        """Add low-rank pairs from now on: ``add`` takes rows as this shard's layer has them.

        What has been made of ``operation`` before goes without.
        """
        self._apply = self._completed(Adapted(self._own, add, adapters))

    def _slots(
        self, path: str, shape: tuple[int, int], cut: Cut | None, start: int = 0
    ) -> Iterator[Slot]:
        """A weight of the checkpoint [outputs, inputs], and its bias, from row ``start`` on."""
        fill = partial(self._fill_weight, start)
        yield Slot(f"{path}.weight", shape, fill, cut=cut, takes_codes=True)
        if self._bias:
            rows = cut if cut is not None and cut.dimension == 0 else None
            yield Slot(f"{path}.bias", shape[:1], partial(self._fill, "bias", start), cut=rows)

    def _fill_weight(self, start: int, weight: Weight) -> None:
        if self._encode is not None and isinstance(weight, torch.Tensor):
            weight = self._encode(weight.to(self._kernels.device))
        if isinstance(weight, torch.Tensor):
            self._fill("weight", start, weight)
            return
        self._codes[start] = weight.copied(self._kernels.device)
        self._count()

    def _fill(self, kind: str, start: int, tensor: torch.Tensor) -> None:
        kernels = self._kernels
        shape = (self.outputs, self.inputs) if kind == "weight" else (self.outputs,)
        complete = tensor.shape == shape and tensor.dtype == kernels.dtype
        if kernels.repacks and complete and kind == "weight":
            self._tensors[kind] = tensor  # PERF: read where the file is mapped, not copied first
        else:
            self._whole(kind, shape)[start : start + len(tensor)].copy_(tensor)
        self._count()

    def _whole(self, kind: str, shape: tuple[int, ...]) -> torch.Tensor:
        """What parts are copied into."""
        whole = self._tensors.get(kind)
        if whole is None:
            whole = torch.empty(shape, dtype=self._kernels.dtype, device=self._kernels.device)
            self._tensors[kind] = whole
        return whole

    def _count(self) -> None:
        self._missing -= 1
        if not self._missing:
            self._finish(self._joined(), self._tensors.pop("bias", None))

    def _joined(self) -> Weight:
        """The parts in one; where they are not all codes of a kind, the numbers that they are."""
        codes = dict(sorted(self._codes.items()))
        self._codes = {}
        if codes and "weight" not in self._tensors:
            whole = joined(list(codes.values()))
            if whole is not None:
                return whole
        for start, part in codes.items():
            rows = self._whole("weight", (self.outputs, self.inputs))
            rows[start : start + part.shape[0]] = part.dequantized(self._kernels.dtype)
        return self._tensors.pop("weight")

    def _finish(self, weight: Weight, bias: torch.Tensor | None) -> None:
        self.weight_bytes, self.is_coded = weight.nbytes, isinstance(weight, Quantized)
        self._own = self._operation(weight, bias)
        self._apply = self._completed(self._own)

    def _operation(self, weight: Weight, bias: torch.Tensor | None) -> LinearOperation:
        return self._pack(weight, bias)

    def _completed(self, operation: LinearOperation) -> LinearOperation:
        """With what other shards have to do with the result."""
        return operation


class Linear(Matrix):
    """One that every shard has whole: a router, whose few weights are never made codes here."""

    def slots(self, path: str = "") -> Iterator[Slot]:
        """The weight, and the bias if there is one."""
        yield from self._slots(path, (self.outputs, self.inputs), None)


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
        super().__init__(kernels, inputs, own, bias=bias, pack=pack, encode=kernels.encode)

    def slots(self, path: str = "") -> Iterator[Slot]:
        """The weight, and the bias if there is one."""
        for place in self.places(path):
            yield from self._slots(path, place.shape, place.cut)

    def places(self, path: str = "") -> Iterator[Place]:
        """Its one weight."""
        rows = sum(units.total for units in self._parts)
        cut = self._kernels.sharding.cut(0, *self._parts)
        yield Place(path, (rows, self.inputs), cut, 0, self)


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
        super().__init__(
            kernels,
            inputs,
            own,
            bias=bias,
            weights=len(outputs),
            pack=pack,
            encode=kernels.encode,
        )

    def slots(self, path: str = "") -> Iterator[Slot]:
        """One weight, and one bias where there are any, per output."""
        for place in self.places(path):
            yield from self._slots(place.key, place.shape, place.cut, place.start)

    def places(self, path: str = "") -> Iterator[Place]:
        """One weight per output."""
        sharding = self._kernels.sharding
        parent = path.rpartition(".")[0]
        prefix = f"{parent}." if parent else ""
        start = 0
        for name, units in self._named.items():
            shape = (units.total, self.inputs)
            yield Place(prefix + name, shape, sharding.cut(0, units), start, self)
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
        own = kernels.sharding.length(inputs)
        super().__init__(kernels, own, outputs, bias=bias, encode=kernels.encode)

    def slots(self, path: str = "") -> Iterator[Slot]:
        """The weight, and the bias if there is one."""
        for place in self.places(path):
            yield from self._slots(path, place.shape, place.cut)

    def places(self, path: str = "") -> Iterator[Place]:
        """Its one weight."""
        cut = self._kernels.sharding.cut(1, self._units)
        yield Place(path, (self.outputs, self._units.total), cut, 0, self)

    def _operation(self, weight: Weight, bias: torch.Tensor | None) -> LinearOperation:
        # The bias belongs into the sum once.
        return self._pack(weight, bias if self._kernels.sharding.rank == 0 else None)

    def _completed(self, operation: LinearOperation) -> LinearOperation:
        add_up = self._kernels.sharding.add_up
        return (lambda x: add_up(operation(x))) if self._adds_up else operation


class OutputLinear(Matrix):
    """From hidden rows to logits, in float32; the vocabulary is cut, the first shard gets all."""

    def __init__(self, kernels: Kernels, inputs: int, vocabulary: int) -> None:
        self._vocabulary = vocabulary
        start, stop = kernels.sharding.entries(vocabulary)
        super().__init__(
            kernels,
            inputs,
            stop - start,
            bias=False,
            pack=kernels.pack_output,
            encode=kernels.encode_output,
        )

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[R, inputs] to a new tensor [R, vocabulary] in the first shard; in others it is any."""
        sharding = self._kernels.sharding
        if sharding.size == 1:
            return self._apply(x)
        missing = -(-self._vocabulary // sharding.size) - self.outputs
        own = self._apply(x)
        if missing:  # only the last shards have fewer
            own = F.pad(own, (0, missing))
        return sharding.gather(own)[:, : self._vocabulary]

    def slots(self, path: str = "") -> Iterator[Slot]:
        """The weight."""
        cut = self._kernels.sharding.cut_entries(self._vocabulary)
        yield from self._slots(path, (self._vocabulary, self.inputs), cut)

    def tie(self, weight: torch.Tensor) -> None:
        """Use this shard's part of the embedding: its memory too, where the kernels can."""
        weight = weight.to(self._kernels.dtype)
        self._finish(self._encode(weight) if self._encode is not None else weight, None)


class Transposed(Layer):
    """A linear layer that the checkpoint has as [inputs, outputs] (GPT-2); quantizers turn it."""

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
            fill = partial(_transposed, slot)
            yield Slot(slot.key, slot.shape[::-1], fill, cut=cut, upright=slot)

    def places(self, path: str = "") -> Iterator[Place]:
        """As the layer within has them: low-rank pairs are not transposed."""
        yield from self._linear.places(path)


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
            yield replace(slot, fill=partial(_filled_by_parts, slot, self._row_shape))

    def places(self, path: str = "") -> Iterator[Place]:
        """Its one weight."""
        for place in super().places(path):
            yield replace(place, order=partial(_by_parts, self._row_shape))


def matrices(layer: Layer) -> Iterator[Matrix]:
    """All of a part of the tree."""
    if isinstance(layer, Matrix):
        yield layer
        return
    for child in vars(layer).values():
        for item in child if isinstance(child, list) else [child]:
            if isinstance(item, Layer):
                yield from matrices(item)


def _transposed(slot: Slot, tensor: torch.Tensor) -> None:
    slot.fill(tensor.T)


def _filled_by_parts(slot: Slot, rows: tuple[int, int, int], weight: Weight) -> None:
    if isinstance(weight, Quantized):
        slot.fill(weight.taken(_by_parts(rows, torch.arange(weight.shape[0]))))
    else:
        slot.fill(_by_parts(rows, weight))


def _by_parts(rows: tuple[int, int, int], weight: torch.Tensor) -> torch.Tensor:
    return weight.reshape(*rows, *weight.shape[1:]).transpose(0, 1).flatten(0, 2)
