"""Checks a model directory before anything is started: files, headers, lengths. Without torch.

Finds what would otherwise be a traceback in a worker after a minute. Whether the tensors are the
right ones for the architecture is the worker's business.
"""

import shlex
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from common import adapters
from common.errors import StartupError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLED = (".bin", ".pt", ".pth", ".ckpt")
_MEDUSA = "medusa_lm_head."
_NO_HEADS = "which are not supported: serve the model that they draft for"
_HOW_TO_SPECULATE = "with --speculate, which drafts without heads"
_MAX_HEADER_BYTES = 100_000_000
GGUF = "GGUF is not read here: take the checkpoint in safetensors that it was made from"


@dataclass(frozen=True)
class Checkpoint:
    """What a verified directory holds."""

    weights: tuple[Path, ...]
    has_fast_tokenizer: bool


def verify(directory: Path) -> Checkpoint:
    """Look at config, weights and tokenizer. Raises StartupError."""
    _refuse_draft_heads(directory, read_config(directory))
    weights = _weights(directory)
    tensors: set[str] = set()
    for path in weights:
        tensors |= read_header(path)
    _check_index(directory, tensors)
    return Checkpoint(tuple(weights), _has_fast_tokenizer(directory))


def read_config(directory: Path) -> dict[str, Any]:
    """The parsed config.json. Raises StartupError."""
    path = directory / "config.json"
    if not path.exists():
        raise StartupError(f"{directory} is not a model: there is no config.json{_hint(directory)}")
    return _json_object(path)


def _hint(directory: Path) -> str:
    """What a directory without a configuration may be instead."""
    if (directory / adapters.CONFIG).exists():
        return f"; {an_adapter(str(directory), directory)}"
    if (directory / "snapshots").is_dir() and directory.name.startswith("models--"):
        repository = directory.name.removeprefix("models--").replace("--", "/")
        place = f"--model-id {repository} --huggingface-hub-cache {directory.parent}"
        return f"; it is where the hub's client keeps downloads: {place} finds it"
    return f"; {GGUF}" if any(directory.glob("*.gguf")) else ""


def an_adapter(place: str, directory: Path) -> str:
    """What to type instead of ``--model-id`` and the place of an adapter, which has its files.

    Raises StartupError.
    """
    base = _json_object(directory / adapters.CONFIG).get("base_model_name_or_path")
    if isinstance(base, str) and base and base.isprintable():
        name, whose = shlex.quote(base), ""
    else:
        name, whose = "BASE", f" (base_model_name_or_path of its {adapters.CONFIG} says which)"
    return (
        f"it is an adapter: serve its base model with it, --model-id {name} --lora-adapters"
        f" {shlex.quote(place)}{whose}, or merge the two"
    )


def _refuse_draft_heads(directory: Path, config: dict[str, Any]) -> None:
    """What TGI serves together with the model that the heads were trained for."""
    if "medusa_num_heads" in config:
        kind = "Medusa heads"
    elif config.get("model_type") == "mlp_speculator":
        kind = "an MLP speculator"
    else:
        return
    base = config.get("base_model_name_or_path")
    name = f" ({base})" if isinstance(base, str) and base else ""
    raise StartupError(f"{directory} holds {kind}, {_NO_HEADS}{name}, {_HOW_TO_SPECULATE}")


def _json_object(path: Path) -> dict[str, Any]:
    if path.exists() and not path.is_file():
        raise StartupError(f"{path} is not a file: fetch the model again")
    try:
        value = msgspec.json.decode(path.read_bytes())
    except OSError as error:
        raise StartupError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise StartupError(f"{path} is not valid JSON ({error}): fetch the model again") from None
    if not isinstance(value, dict):
        raise StartupError(f"{path} does not hold a JSON object: fetch the model again")
    return value


def choose_weights(names: list[str]) -> list[str]:
    """Of a directory's top-level files, the weights to load (or to download).

    One ``model.safetensors``, or the shards that an index names. Repositories that carry the same
    weights a second time (``consolidated.safetensors``) are read once.
    """
    if SINGLE in names:
        return [SINGLE]
    if INDEX not in names:
        return []
    found = sorted(name for name in names if name.endswith(".safetensors") and "/" not in name)
    return [name for name in found if name.startswith("model")] or found


def no_weights(
    place: str, names: list[str], wanted: str = f"neither {SINGLE} nor {INDEX} is"
) -> StartupError:
    """The sentence for a place without safetensors."""
    if any(name.startswith(_MEDUSA) for name in names):
        return StartupError(f"{place} holds Medusa heads, {_NO_HEADS}, {_HOW_TO_SPECULATE}")
    pickled = sorted(name for name in names if name.endswith(PICKLED))
    if pickled and not any(name.endswith(".safetensors") for name in names):
        return StartupError(
            f"{place} has only pickled weights ({pickled[0]}), which can run code when they are "
            "loaded and are refused: convert them to safetensors"
        )
    return StartupError(f"{place} has no weights: {wanted} there")


def _weights(directory: Path) -> list[Path]:
    names = [path.name for path in directory.iterdir()]
    if SINGLE in names:
        return [directory / SINGLE]
    if INDEX not in names:
        raise no_weights(str(directory), names)
    shards = sorted(set(_weight_map(directory / INDEX).values()))
    for shard in shards:
        if shard not in names:
            raise StartupError(
                f"{directory / shard} is missing: {INDEX} names it; fetch the model again"
            )
    return [directory / shard for shard in shards]


def _weight_map(index: Path) -> dict[str, str]:
    entries = _json_object(index).get("weight_map")
    if not isinstance(entries, dict) or not entries:
        raise StartupError(f"{index} has no weight_map: fetch the model again")
    return {str(tensor): str(shard) for tensor, shard in entries.items()}


def _check_index(directory: Path, tensors: set[str]) -> None:
    index = directory / INDEX
    if not index.exists() or (directory / SINGLE).exists():
        return
    lost = sorted(set(_weight_map(index)) - tensors)
    if lost:
        raise StartupError(
            f"{index} promises {lost[0]}, which no file holds ({len(lost)} such): fetch the model "
            "again"
        )


def path_of(text: str, named: str) -> Path:
    """Where that is on this machine, if it is there: ``named`` is the setting that says so.

    Raises StartupError where nothing can be found by such a name.
    """
    try:
        path = Path(text).expanduser()
        path.exists()
    except (OSError, RuntimeError) as error:  # too long, not to be entered; nobody's home
        why = error.strerror if isinstance(error, OSError) else error
        raise StartupError(f"{named}: {text} cannot be looked for: {why}") from None
    return path


def read_header(path: Path) -> set[str]:
    """Tensor names of a safetensors file whose length fits its header. Raises StartupError.

    The format: 8 bytes with the header's length (little endian), the header (JSON: name to dtype,
    shape and ``data_offsets``), the data.
    """
    try:
        actual = path.stat().st_size
        with path.open("rb") as file:
            prefix = file.read(8)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else _MAX_HEADER_BYTES + 1
            text = file.read(length) if length <= min(actual, _MAX_HEADER_BYTES) else b""
    except OSError as error:
        raise StartupError(f"cannot read {path}: {error.strerror}") from None
    try:
        header = msgspec.json.decode(text, type=dict[str, dict[str, Any]])
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name[:2] != "__"]
        expected = 8 + length + max(ends, default=0)
    except (ValueError, RecursionError, KeyError, IndexError, TypeError):
        raise StartupError(
            f"{path} is not a safetensors file, or is cut off ({actual} bytes): fetch it again"
        ) from None
    if expected != actual:
        word = "cut off" if actual < expected else "too long"
        raise StartupError(
            f"{path} is {word}: {actual} bytes instead of {expected}; fetch it again"
        )
    return {name for name in header if name[:2] != "__"}


def _has_fast_tokenizer(directory: Path) -> bool:
    path = directory / "tokenizer.json"
    if not path.exists():
        return False
    _json_object(path)
    return True
