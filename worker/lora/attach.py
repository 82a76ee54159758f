"""Adapters beside the layers of a model: each pair is cut as its layer is, and put where that adds.

Runs in the worker, once, when the model has its weights. Several weights of a checkpoint may be one
layer here (queries, keys and values): their pairs become one, of all their ranks, whose part B has
blocks. So each layer has one pair of every adapter, and adds it in one go.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch

from common.adapters import Adapter, digest_of
from common.errors import StartupError
from worker.kernels.low_rank import LowRank
from worker.kernels.select import Kernels
from worker.layers.adapted import StepAdapters
from worker.layers.layer import Place
from worker.layers.linear import Matrix
from worker.lora.checkpoint import AdapterFiles, Pair, refusal
from worker.models.decoder import CausalLM
from worker.models.model import Model
from worker.sharding import Cut

_log = logging.getLogger(__name__)


def attach(model: Model, adapters: Sequence[Adapter], kernels: Kernels) -> None:
    """Make these the adapters 0, 1, … of a model that has its weights. Raises StartupError."""
    if not adapters:
        return
    if not isinstance(model, CausalLM):
        raise StartupError(no_adapters(model.configuration.architecture))
    places = {place.key: place for place in model.places()}
    pairs: dict[Matrix, list[LowRank | None]] = {}
    with torch.inference_mode():
        for number, adapter in enumerate(adapters):
            _check_digest(adapter)
            files = AdapterFiles(adapter)
            for layer, pair in _pairs(model, files, places, kernels):
                pairs.setdefault(layer, [None] * len(adapters))[number] = pair
        step = model.decoder.adapters = StepAdapters(
            kernels.low_rank, kernels.device, len(adapters)
        )
        for layer, own in pairs.items():
            layer.adapt(kernels.low_rank.pack(own), step)
    _log.info("%d adapter(s): %s", len(adapters), ", ".join(adapter.name for adapter in adapters))


def no_adapters(architecture: str) -> str:
    """The sentence for a model whose layers are not ours."""
    return (
        f"{architecture} runs through transformers, where adapters are not supported: leave out"
        " --lora-adapters, or merge the adapter into the model"
    )


def _check_digest(adapter: Adapter) -> None:
    """Requests and cached blocks name the weights that the server was started with."""
    if digest_of(Path(adapter.directory)) != adapter.digest:
        raise refusal(
            adapter.name,
            f"the files in {adapter.directory} are not those that the server was started with:"
            " start it anew to serve them",
        )


def _pairs(
    model: CausalLM, files: AdapterFiles, places: Mapping[str, Place], kernels: Kernels
) -> Iterable[tuple[Matrix, LowRank]]:
    """What an adapter adds to each of the layers that it changes."""
    found: dict[Matrix, list[tuple[Place, Pair]]] = {}
    for pair in files.pairs:
        place = _place(model, files.name, pair, places)
        found.setdefault(place.layer, []).append((place, pair))
    for layer, parts in found.items():
        yield layer, _joined(layer, parts, files, kernels)


def _place(model: CausalLM, name: str, pair: Pair, places: Mapping[str, Place]) -> Place:
    key = model.declared(f"{pair.module}.weight").removesuffix(".weight")
    place = places.get(key)
    if place is None:
        there = {slot.key for slot in model.slots()}
        why = "which is not adapted here" if f"{key}.weight" in there else "which the model lacks"
        raise refusal(name, f"the tensor {pair.keys[0]} is of {pair.module}, {why}")
    if place.shape != (pair.outputs, pair.inputs):
        raise refusal(
            name,
            f"the tensor {pair.keys[0]} is of a layer of {pair.inputs} inputs and {pair.outputs}"
            f" outputs, the model's has {place.shape[1]} and {place.shape[0]}",
        )
    return place


def _joined(
    layer: Matrix, parts: list[tuple[Place, Pair]], files: AdapterFiles, kernels: Kernels
) -> LowRank:
    """One pair of several, each on its outputs of the layer."""
    rank = sum(pair.rank for _, pair in parts)
    down = torch.zeros((rank, layer.inputs), dtype=torch.float32)
    up = torch.zeros((layer.outputs, rank), dtype=torch.float32)
    first = 0
    for place, pair in parts:
        a, b = files.read(pair)
        own_a, own_b = _cut(a, place.cut, 1), place.order(_cut(b, place.cut, 0))
        ranks = slice(first, first + pair.rank)
        down[ranks] = own_a
        up[place.start : place.start + len(own_b), ranks] = own_b.float() * pair.scale
        first += pair.rank
    rounded = [tensor.to(kernels.dtype) for tensor in (down, up)]
    if not _are_finite(rounded):
        modules = ", ".join(pair.module for _, pair in parts)
        raise refusal(files.name, f"what it adds to {modules} is not finite in {kernels.dtype}")
    return LowRank(*(tensor.to(kernels.device) for tensor in rounded))


def _are_finite(tensors: Iterable[torch.Tensor]) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


def _cut(tensor: torch.Tensor, cut: Cut | None, dimension: int) -> torch.Tensor:
    """Of a shard its part, if the weight is cut in that dimension."""
    if cut is None or cut.dimension != dimension:
        return tensor
    spans = [tensor.narrow(dimension, start, stop - start) for start, stop in cut.spans]
    return torch.cat(spans, dim=dimension)
