"""From a model directory to a model: config.json, then every tensor of the safetensors files.

Runs in the worker, once. All names and shapes are checked before the first tensor is read (which is
``filling``'s business). Pickled weights are refused. Every error is a StartupError that names the
file or the tensor.
"""

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from common.adapters import Adapter
from common.errors import StartupError
from common.quantization import read_quantization
from worker.devices import check_kv_dtype, resolve_dtype
from worker.filling import Stored, fill, opened, same_numbers, try_cut
from worker.kernels.cpu.library import Library
from worker.kernels.select import DEFAULTS, Choices, select
from worker.layers.layer import Slot
from worker.lora.attach import attach, no_adapters
from worker.models.configuration import (
    ModelConfiguration,
    architecture_of,
    check_plain,
    checkpoint_dtype,
    model_type_of,
    parse,
)
from worker.models.model import Model
from worker.models.registry import find
from worker.quantization.find import Found
from worker.quantization.plan import plan_weights
from worker.scales import is_scale, read_scales
from worker.sharding import WHOLE, Sharding, refusal

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_PICKLED = ("*.bin", "*.pt", "*.pth")
_NOT_WEIGHTS = ("rotary_emb.inv_freq",)
"""Ends of keys that old checkpoints contain and nobody needs: the configuration implies them."""
_FLOATS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
_NAMED = 5
"""Tensors named in a message; the others are counted."""

_log = logging.getLogger(__name__)


def load_model(
    model_dir: str,
    *,
    device: torch.device,
    dtype: torch.dtype | None,
    rope_scaling: str | None = None,
    rope_factor: float | None = None,
    library: Library | None = None,
    weights: bool = True,
    sharding: Sharding = WHOLE,
    choices: Choices = DEFAULTS,
    quantize: str | None = None,
    adapters: Sequence[Adapter] = (),
) -> Model:
    """A model, or a part of it, with its weights on ``device``.

    A dtype of None is resolved from the checkpoint. Torch's threads should be set before: kernels
    are chosen here, by ``choices``, from the C ``library`` too if there is one. ``quantize`` is the
    setting. Without ``weights`` everything is checked, and one matrix read at most, to cut it (and
    an output layer beside the embedding that it should be): such a model has its configuration and
    its slots. (One without a declaration is read: only running it tells how it runs.) ``adapters``
    are numbered from 0 in a step's inputs. Raises StartupError.
    """
    directory = Path(model_dir)
    config = _read_json(directory / "config.json")
    architecture = architecture_of(config)
    plan = plan_weights(read_quantization(quantize, config, directory))
    stored = _stored(directory)
    kind = checkpoint_dtype(config) or _dtype_of(stored)
    dtype = resolve_dtype(dtype, plan.computed_in(kind, device), device)
    check_kv_dtype(choices.kv_dtype, dtype, device)
    declaration = find(architecture, model_type_of(config))
    if declaration is None:
        from worker.models.through_transformers import classes  # transformers comes with it

        found_class = classes.find(architecture, config, directory)  # before what it cannot do
        check_plain(config, rope_scaling=rope_scaling, rope_factor=rope_factor)
        plan.check_foreign(architecture)
        if adapters:
            raise StartupError(no_adapters(architecture))
        return _foreign(
            architecture, found_class, directory, device, dtype, library, sharding, choices
        )
    configuration = parse(config, dtype=dtype, rope_scaling=rope_scaling, rope_factor=rope_factor)
    _check_sharding(configuration, sharding.size)
    kernels = plan.encoding(select(device, dtype, library, sharding, choices))
    model = declaration(configuration, kernels)
    model.kv_dtype = choices.kv_dtype
    if choices.kv_dtype is not None and choices.kv_dtype.itemsize == 1:
        scales = {key: tensor for key, tensor in stored.items() if is_scale(key)}
        layers = len(configuration.kv_layers)
        model.kv_scales = read_scales(scales, layers, choices.kv_dtype)
    name = model.names_in(stored)
    stored = {model.declared(key): stored[key] for key in stored if not is_scale(key)}
    _settle_output(model, stored)
    slots = {slot.key: slot for slot in _chosen(model.slots(), stored)}
    found = plan.find(slots, stored, name)
    plain = {key: stored[key] for key in stored if key not in found.used}
    _check(slots, plain, found, model, name)
    plan.check_coded(found)
    model.quantization = plan.description
    model.weights_bytes = plan.bytes_of(slots.values(), found, dtype)
    if not weights:
        try_cut(slots, found.coded)
        return model
    fill(slots, {**stored, **found.coded})
    model.finish()
    kernels.settle()
    attach(model, adapters, kernels)
    plan.report(model)
    return model


def _foreign(
    architecture: str,
    found_class: tuple[Any, Any],
    directory: Path,
    device: torch.device,
    dtype: torch.dtype,
    library: Library | None,
    sharding: Sharding,
    choices: Choices,
) -> Model:
    """One that runs through transformers: of a class of its, with that class's configuration."""
    if sharding.size > 1:
        raise StartupError(
            f"{architecture} runs through transformers, which cannot be split over shards:"
            " leave out --num-shard, or use --num-replicas for more copies"
        )
    from worker.models.through_transformers.load import load

    kernels = select(device, dtype, library, choices=choices)
    model = load(*found_class, directory, kernels)
    if choices.kv_dtype is not None and not model.shares_prefixes:
        raise StartupError(
            f"{architecture} keeps its keys and values itself: leave out --kv-cache-dtype"
        )
    model.kv_dtype = choices.kv_dtype
    return model


# --- what is there ----------------------------------------------------------------------------


def _stored(directory: Path) -> dict[str, Stored]:
    """Every tensor of the checkpoint, from the files' headers."""
    stored: dict[str, Stored] = {}
    for path in _files(directory):
        with opened(path) as file:
            for key in file.keys():  # noqa: SIM118 - not a mapping
                part = file.get_slice(key)
                stored[key] = Stored(path, key, tuple(part.get_shape()), part.get_dtype())
    return stored


def _files(directory: Path) -> list[Path]:
    if (directory / _SINGLE).is_file():
        return [directory / _SINGLE]
    if (directory / _INDEX).is_file():
        shards = _read_json(directory / _INDEX).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise StartupError(f"{directory / _INDEX} has no weight_map")
        files = [directory / str(name) for name in dict.fromkeys(shards.values())]
        for path in files:
            if path.parent != directory or not path.is_file():
                raise StartupError(f"{directory / _INDEX} names {path.name}, which is not there")
        return files
    pickled = sorted(path.name for pattern in _PICKLED for path in directory.glob(pattern))
    if pickled:
        raise StartupError(
            f"{directory} has only pickled weights ({pickled[0]}), which can run code when they "
            f"are loaded: convert them to safetensors"
        )
    raise StartupError(f"{directory} has no weights: neither {_SINGLE} nor {_INDEX} is there")


def _dtype_of(stored: Mapping[str, Stored]) -> torch.dtype:
    for tensor in stored.values():
        if tensor.dtype in _FLOATS:
            return _FLOATS[tensor.dtype]
    return torch.float32


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise StartupError(f"{path} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise StartupError(f"{path} is not a JSON object")
    return content


# --- is it what is wanted? --------------------------------------------------------------------


def _chosen(slots: Iterable[Slot], stored: Mapping[str, Stored]) -> Iterator[Slot]:
    """Slots, or the parts of those whose tensors are stored in parts; plain or as codes."""
    stems = {key.rpartition(".")[0] for key in stored}

    def is_stored(slot: Slot) -> bool:
        coded = slot.for_codes is not None and slot.key.removesuffix(".weight") in stems
        return coded or slot.key in stored

    for slot in slots:
        if not is_stored(slot) and any(is_stored(part) for part in slot.parts):
            yield from slot.parts
        else:
            yield slot


def _settle_output(model: Model, stored: dict[str, Stored]) -> None:
    """Of a tied pair either tensor will do; two that differ are not tied: as transformers has it.

    Who trained an output layer of its own may have left config.json as it was.
    """
    if model.tied is None or model.tied[1] not in stored:
        return
    embedding, output = model.tied
    if embedding not in stored:
        stored[embedding] = stored.pop(output)
    elif not same_numbers(stored[embedding], stored[output]):
        _log.warning(
            "config.json says that %s is %s, but the checkpoint has both, and they differ: they"
            " are not tied",
            output,
            embedding,
        )
        model.untie()


def _check_sharding(configuration: ModelConfiguration, shards: int) -> None:
    mixture = configuration.mixture
    widths = {"intermediate_size": configuration.intermediate_size}
    if mixture is not None:
        widths = {"moe_intermediate_size": mixture.width}
        if len(configuration.mixture_layers) < configuration.num_layers:
            widths["intermediate_size"] = configuration.intermediate_size
    sentence = refusal(
        shards, heads=configuration.num_heads, kv_heads=configuration.num_kv_heads, widths=widths
    )
    if sentence:
        raise StartupError(sentence)


def _check(
    slots: Mapping[str, Slot],
    stored: Mapping[str, Stored],
    found: Found,
    model: Model,
    name: Callable[[str], str],
) -> None:
    """Raise StartupError unless declaration and checkpoint, but for what is codes, agree."""
    slots = {key: slot for key, slot in slots.items() if key not in found.coded}
    missing = [key for key in slots if key not in stored]
    if missing:
        instead = _instead(missing[0], stored)
        raise StartupError(f"the checkpoint lacks {_list(list(map(name, missing)))}{instead}")
    left_over = [
        part.key
        for key, part in stored.items()
        if key not in slots and not model.is_needless(key) and not key.endswith(_NOT_WEIGHTS)
    ]
    if left_over:
        raise StartupError(f"the model has no place for {_list(left_over)} of the checkpoint")
    for key, slot in slots.items():
        plain = stored[key]
        if plain.shape != slot.shape:
            raise StartupError(
                f"{plain.key} in {plain.file.name} has the shape {list(plain.shape)}, "
                f"config.json asks for {list(slot.shape)}"
            )
        if plain.dtype not in _FLOATS:
            raise StartupError(
                f"{plain.key} in {plain.file.name} is of type {plain.dtype}: not supported"
            )


def _instead(missing: str, stored: Mapping[str, Stored]) -> str:
    """What may stand for a missing tensor: codes that config.json does not speak of."""
    stem = missing.removesuffix(".weight") + "."
    found = [
        part.key
        for key, part in stored.items()
        if key.startswith(stem) and not key.endswith(".bias")
    ]
    return f", and has {found[0]}: it is not quantized as config.json says" if found else ""


def _list(keys: list[str]) -> str:
    named = ", ".join(keys[:_NAMED])
    more = len(keys) - _NAMED
    return f"{named} and {more} more tensors" if more > 0 else f"the tensor(s) {named}"
