"""Derived values and impossible combinations, from the resolved settings, the model, the machine.

Pure. The rule of adaptation: a value that nobody set gives way to one that somebody set; two set
values that contradict each other stop the start. A model with a smaller context clips both, and
says so.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from common.errors import StartupError
from common.option import AUTO, MOST_PROCESSES
from common.options import OPTIONS
from launcher import adapters
from launcher.children import can_trace
from launcher.keys import check_keys, derive_playground
from launcher.machine import Machine
from launcher.resolve import Resolution

ROOM_FOR_OUTPUT = 1024
"""Tokens that a total derived from --max-input-tokens leaves for the answer."""
_CONTEXT_KEYS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "max_target_positions",
    "seq_length",
)
_ORIGINAL = "original_max_position_embeddings"
_SHOWN_CPUS = 8
_NO_LIMIT = 10**9
"""Tokenizers without a limit carry a huge ``model_max_length``."""


@dataclass(frozen=True)
class Context:
    """How long a model's sequences may be."""

    tokens: int
    reason: str


def read_context(model_dir: Path, resolution: Resolution) -> Context | None:
    """The context from config.json and tokenizer_config.json; None if neither says anything."""
    config = _json(model_dir / "config.json")
    nested = config.get("text_config")
    places = [config, nested] if isinstance(nested, dict) else [config]
    found = [
        Context(place[key], f"{key} of the model's config.json is {place[key]}")
        for place in places
        for key in _CONTEXT_KEYS
        if isinstance(place.get(key), int) and place[key] > 0
    ][:1]
    factor = resolution["rope_factor"]
    if factor and factor > 1:
        tokens = [math.floor(context.tokens * factor) for context in found]
        return Context(tokens[0], f"{found[0].reason}, times --rope-factor") if found else None
    if resolution["rope_scaling"] is None and factor is None:
        for place in places:
            rope = place.get("rope_scaling") or place.get("rope_parameters")
            if isinstance(rope, dict):
                found = _stretched(found, place, rope) + _longrope(place, rope)
    longest = _json(model_dir / "tokenizer_config.json").get("model_max_length")
    if isinstance(longest, int) and 0 < longest < _NO_LIMIT:
        reason = f"model_max_length of the model's tokenizer_config.json is {longest}"
        found.append(Context(longest, reason))
    return min(found, key=lambda context: context.tokens, default=None)


def _stretched(found: list[Context], config: dict[str, Any], rope: dict[str, Any]) -> list[Context]:
    """Yarn reaches as far as its factor says, though many set nothing else to switch it on."""
    factor, original = rope.get("factor"), config.get(_ORIGINAL) or rope.get(_ORIGINAL)
    if not found or _kind(config, rope) != "yarn" or not isinstance(factor, int | float):
        return found
    first = original if isinstance(original, int) and original > 0 else found[0].tokens
    if not found[0].tokens < first * factor < _NO_LIMIT:
        return found
    return [
        Context(
            math.floor(first * factor),
            f"yarn of the model's config.json stretches {first} tokens by {factor:g}",
        )
    ]


def _longrope(config: dict[str, Any], rope: dict[str, Any]) -> list[Context]:
    """Models with this scaling run within their original context: the worker takes no more."""
    original = config.get(_ORIGINAL) or rope.get(_ORIGINAL)
    if _kind(config, rope) != "longrope" or not isinstance(original, int) or original < 1:
        return []
    reason = (
        f"{_ORIGINAL} of the model's config.json is {original}, and longrope is run up to there"
    )
    return [Context(original, reason)]


def _kind(config: dict[str, Any], rope: dict[str, Any]) -> Any:
    """Of scaling. Early checkpoints of Phi-3 call longrope su or yarn."""
    kind = rope.get("rope_type", rope.get("type"))
    old = ("su", "yarn") if config.get("model_type") == "phi3" else ("su",)
    return "longrope" if kind in old else kind


def _json(path: Path) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def check_combinations(resolution: Resolution) -> None:
    """What can be refused before a model is looked at. Raises StartupError."""
    chosen = {name: resolution[name] for name, value in resolution.values.items() if value.explicit}
    room = chosen.get("max_batch_total_tokens")
    most = chosen.get("max_input_tokens")
    total = chosen.get("max_total_tokens")
    if most is not None and total is not None and most >= total:
        raise StartupError(
            f"{resolution.named('max_input_tokens')} ({most}) must be smaller than "
            f"{resolution.named('max_total_tokens')} ({total}): lower the first or raise the second"
        )
    for name in ("max_total_tokens", "max_batch_prefill_tokens", "max_input_tokens"):
        value = chosen.get(name)
        if room is not None and value is not None and value > room - (name == "max_input_tokens"):
            raise StartupError(
                f"{resolution.named(name)} ({value}) does not fit into "
                f"{resolution.named('max_batch_total_tokens')} ({room}): lower the first or raise "
                "the second"
            )
    if resolution["port"] == resolution["prometheus_port"]:
        raise StartupError(
            f"{resolution.named('port')} and {resolution.named('prometheus_port')} are both "
            f"{resolution['port']}: choose two different ports"
        )
    if resolution["otlp_endpoint"] is not None and not can_trace():
        raise StartupError(
            f"{resolution.named('otlp_endpoint')} needs packages that are not installed: "
            "pip install '.[tracing]' where Millrace's sources are, or leave it out"
        )
    path = resolution["tokenizer_config_path"]
    if path is not None and not Path(path).is_file():
        raise StartupError(f"{resolution.named('tokenizer_config_path')}: there is no file {path}")
    check_keys(resolution)
    adapters.parse(resolution)


def derive(resolution: Resolution, context: Context | None, machine: Machine) -> None:
    """Replace every ``auto`` and adapt every default."""
    check_combinations(resolution)
    _rope(resolution)
    _total(resolution, context)
    _input(resolution)
    _step(resolution)
    if resolution["max_batch_total_tokens"] == AUTO:
        resolution.derive("max_batch_total_tokens", None, "the worker fills the memory that it has")
    _processes(resolution, machine)
    derive_playground(resolution)


def _rope(resolution: Resolution) -> None:
    if resolution["rope_factor"] is not None and resolution["rope_scaling"] is None:
        resolution.derive("rope_scaling", "linear", "--rope-factor is set")
    elif resolution["rope_scaling"] is not None and resolution["rope_factor"] is None:
        resolution.derive("rope_factor", 1.0, "--rope-scaling is set without a factor")


def _total(resolution: Resolution, context: Context | None) -> None:
    value = resolution.values["max_total_tokens"]
    room = resolution.values["max_batch_total_tokens"]
    if not value.explicit:
        total, reason = _unset_total(resolution, context)
        if room.explicit and room.value < total:
            total, reason = room.value, f"{resolution.named('max_batch_total_tokens')} is smaller"
        if total != value.value:
            resolution.derive("max_total_tokens", total, reason)
    total = resolution["max_total_tokens"]
    if context is not None and total > context.tokens:
        resolution.note(
            f"{resolution.named('max_total_tokens')} is lowered from {total} to {context.tokens}: "
            f"{context.reason}",
            "warning" if value.explicit else "info",
        )
        resolution.derive("max_total_tokens", context.tokens, f"clipped: {context.reason}")
    elif context is not None and total < context.tokens and _is_left_alone(resolution):
        resolution.note(
            f"requests may have {total} of the {context.tokens} tokens that the model can read: "
            "--max-total-tokens auto --max-input-tokens auto allow all of them"
        )
    if resolution["max_total_tokens"] < 2:
        raise StartupError(
            f"a context of {resolution['max_total_tokens']} tokens has no room for an answer "
            f"({resolution.values['max_total_tokens'].source})"
        )


def _is_left_alone(resolution: Resolution) -> bool:
    """Whether nobody has said how long requests may be, not even by the room for all of them."""
    names = ("max_total_tokens", "max_input_tokens", "max_batch_total_tokens")
    return all(
        resolution[name] == OPTIONS[name].default and not resolution.values[name].explicit
        for name in names
    )


def _unset_total(resolution: Resolution, context: Context | None) -> tuple[int, str]:
    default: int = OPTIONS["max_total_tokens"].default
    most = resolution.values["max_input_tokens"]
    if resolution["max_total_tokens"] == AUTO and context is not None:
        return context.tokens, context.reason
    if most.explicit and most.value >= default:
        named = resolution.named("max_input_tokens")
        return most.value + ROOM_FOR_OUTPUT, f"{named} and {ROOM_FOR_OUTPUT} for the answer"
    return default, "the model names no context"


def _input(resolution: Resolution) -> None:
    value = resolution.values["max_input_tokens"]
    largest = resolution["max_total_tokens"] - 1
    if value.value == AUTO:
        resolution.derive("max_input_tokens", largest, "max_total_tokens - 1")
    elif value.value > largest:
        resolution.note(
            f"{resolution.named('max_input_tokens')} is lowered from {value.value} to {largest}, "
            "max_total_tokens - 1",
            "warning" if value.explicit else "info",
        )
        resolution.derive("max_input_tokens", largest, "clipped to max_total_tokens - 1")


def _step(resolution: Resolution) -> None:
    value = resolution.values["max_batch_prefill_tokens"]
    room = resolution.values["max_batch_total_tokens"]
    if value.explicit:
        return
    tokens: int = OPTIONS["max_batch_prefill_tokens"].default
    reason = "the default"
    if room.explicit and room.value < tokens:
        tokens, reason = room.value, f"{resolution.named('max_batch_total_tokens')} is smaller"
    if tokens != value.value:
        resolution.derive("max_batch_prefill_tokens", tokens, reason)


def _processes(resolution: Resolution, machine: Machine) -> None:
    cores, replicas = machine.cores, resolution["num_replicas"]
    if resolution["device"] == "cuda" and not machine.gpus:
        raise StartupError(
            f"{resolution.named('device')} is cuda, but this machine shows no NVIDIA GPU: "
            "check nvidia-smi, or use --device cpu"
        )
    _shards(resolution, machine)
    workers = replicas * resolution["num_shard"]
    if workers > MOST_PROCESSES:
        raise StartupError(
            f"{resolution.named('num_replicas')} times {resolution.named('num_shard')} is {workers}"
            f" processes: more than {MOST_PROCESSES} are not started"
        )
    if resolution["num_frontends"] == AUTO:
        count = max(1, min(4, cores // 4)) if cores >= 8 else 1
        resolution.derive("num_frontends", count, f"{cores} cores")
    _cpus(resolution, machine, workers)
    if resolution["worker_threads"] == AUTO:
        reserved = resolution["num_frontends"] if cores > 2 else 0
        threads = max(1, (cores - reserved) // workers)
        reason = f"{cores} cores"
        reason += f", {reserved} kept for the front ends" if reserved else ""
        reason += f", {workers} workers" if workers > 1 else ""
        resolution.derive("worker_threads", threads, reason)
    if resolution["compute_type"] == AUTO:
        on_gpu = _on_gpu(resolution, machine)
        kind = f"{resolution['num_shard']}-{_slug(machine.gpus[0])}" if on_gpu else "cpu"
        resolution.derive("compute_type", kind, "the device")


def _cpus(resolution: Resolution, machine: Machine, workers: int) -> None:
    """As many threads as there are processors to pin them to."""
    cpus, threads = resolution["worker_cpus"], resolution.values["worker_threads"]
    if cpus is None:
        return
    named = resolution.named("worker_cpus")
    if _on_gpu(resolution, machine):
        raise StartupError(f"{named} is for workers that compute on a CPU: leave it out")
    absent = sorted(set(cpus) - set(machine.cpus))
    if absent:
        raise StartupError(
            f"{named} names processors that this process may not use: {_listed(absent)}; there are"
            f" {_listed(machine.cpus)}"
        )
    if len(cpus) % workers:
        raise StartupError(f"{named} names {len(cpus)} processors for {workers} workers: not alike")
    each = len(cpus) // workers
    if threads.explicit and threads.value != each:
        raise StartupError(
            f"{resolution.named('worker_threads')} ({threads.value}) and {named} ({each} for each"
            " worker) contradict each other: leave out one of them"
        )
    resolution.derive("worker_threads", each, f"{named} names {len(cpus)}")


def _listed(cpus: Sequence[int]) -> str:
    shown = ",".join(map(str, cpus[:_SHOWN_CPUS]))
    return shown if len(cpus) <= _SHOWN_CPUS else f"{shown}… ({len(cpus)})"


def _on_gpu(resolution: Resolution, machine: Machine) -> bool:
    return bool(machine.gpus) and resolution["device"] != "cpu"


def _shards(resolution: Resolution, machine: Machine) -> None:
    """How many processes share a copy of the model, and whether there are devices for them."""
    shards, sharded = resolution.values["num_shard"], resolution["sharded"]
    gpus = 0 if resolution["device"] == "cpu" else len(machine.gpus)
    named = resolution.named("num_shard")
    if shards.explicit and sharded is not None and sharded is not (shards.value > 1):
        raise StartupError(
            f"{named} ({shards.value}) and {resolution.named('sharded')} contradict each other:"
            " leave out one of them"
        )
    if sharded and not shards.explicit:
        if gpus < 2:
            raise StartupError(
                f"{resolution.named('sharded')} is true, but there are no two GPUs to share the"
                " model among: leave it out, or say --num-shard to share it among processes"
            )
        resolution.derive("num_shard", gpus, f"--sharded, {gpus} GPUs")
    elif gpus and shards.value > gpus:
        raise StartupError(
            f"{named} is {shards.value}, but this machine shows {gpus} GPU(s): lower it, or use"
            " --device cpu"
        )
    elif not gpus and shards.value > machine.cores:
        resolution.note(
            f"{named} is {shards.value} with {machine.cores} core(s): fewer would be faster",
            "warning",
        )


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
