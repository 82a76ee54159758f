"""An adapter's files, as PEFT writes them: what they say, or a sentence why they cannot be served.

Runs in the worker, once per adapter. Reads headers at first and tensors when they are asked for.
Knows nothing of the model that they are for.

Of PEFT's options those are taken that change the size of the pairs or their scale (``r``,
``lora_alpha``, ``use_rslora``, ``rank_pattern``, ``alpha_pattern``); those that only say how it was
trained change nothing; all others that change what is computed are refused.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from common.adapters import CONFIG, WEIGHTS, Adapter
from common.errors import StartupError
from worker.filling import opened
from worker.lora.patterns import PatternError, Patterns

_KEY = re.compile(r"base_model\.model\.(.+)\.lora_([AB])(?:\.default)?\.weight")
_FLOATS = ("F64", "F32", "F16", "BF16")
_REFUSED = {
    "use_dora": "it is a DoRA adapter",
    "use_qalora": "it is a QALoRA adapter",
    "use_bdlora": "its pairs are block-diagonal (BD-LoRA)",
    "arrow_config": "it routes between adapters (Arrow)",
    "monteclora_config": "it is a MonteCLoRA adapter",
    "alora_invocation_tokens": "it is an activated LoRA, which begins in the midst of a prompt",
    "lora_bias": "it has biases of its own",
    "modules_to_save": "it has whole layers of its own (modules_to_save)",
    "trainable_token_indices": "it has embeddings of its own (trainable_token_indices)",
    "layer_replication": "it repeats layers of its model (layer_replication)",
    "target_parameters": "it changes tensors that are no linear layers (target_parameters)",
}
"""Entries of the configuration that change what is computed, if they say anything."""
_RESHAPES_MODEL = ("pissa", "corda", "olora", "loftq", "lora_ga")
"""What ``init_lora_weights`` begins with where training first took the pairs out of the model's
weights: beside the weights as they were, such pairs are too much."""
_LEFT_OVER = {
    "lora_magnitude_vector": "belongs to a DoRA adapter",
    "lora_embedding": "is of a trained embedding",
    ".bias": "is a trained bias",
    "modules_to_save": "is a whole layer of its own",
}
"""What a tensor that is none of a pair may be, by a part of its name."""
_LARGEST = 1 << 31
"""Of ranks and scales: no number that is meant; infinity and what no float holds are above it."""
_MERGE = "merge it into its model, and serve that"


@dataclass(frozen=True, slots=True)
class Pair:
    """The two tensors of one module, by their headers."""

    module: str
    """As the adapter's base model calls it."""
    rank: int
    inputs: int
    outputs: int
    scale: float
    """Of their product."""
    keys: tuple[str, str]
    """Of A [rank, inputs] and B [outputs, rank]."""


class AdapterFiles:
    """One adapter's. Raises StartupError where it is not what can be served."""

    def __init__(self, adapter: Adapter) -> None:
        self.name = adapter.name
        self._path = Path(adapter.directory) / WEIGHTS
        config = _read(adapter)
        _check(adapter.name, config)
        self._ranks = _patterns(adapter.name, config, "rank_pattern", whole=True)
        self._alphas = _patterns(adapter.name, config, "alpha_pattern", whole=False)
        shapes = self._shapes()
        self.pairs = [
            self._pair(module, keys, shapes, config) for module, keys in self._modules(shapes)
        ]

    def read(self, pair: Pair) -> tuple[torch.Tensor, torch.Tensor]:
        """A and B, as they are stored."""
        with opened(self._path) as file:
            down, up = (file.get_tensor(key) for key in pair.keys)
        return down, up

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        shapes = {}
        with opened(self._path) as file:
            for key in file.keys():  # noqa: SIM118 - not a mapping
                part = file.get_slice(key)
                if part.get_dtype() not in _FLOATS:
                    raise refusal(self.name, f"the tensor {key} is of type {part.get_dtype()}")
                shapes[key] = tuple(part.get_shape())
        return shapes

    def _modules(self, shapes: Mapping[str, tuple[int, ...]]) -> list[tuple[str, tuple[str, str]]]:
        """Each module and the names of its pair; no tensor is left over."""
        found: dict[str, dict[str, str]] = {}
        for key in shapes:
            match = _KEY.fullmatch(key)
            if match is None:
                why = [text for part, text in _LEFT_OVER.items() if part in key]
                why = why or ["is none of a pair base_model.model.….lora_A.weight, ….lora_B.weight"]
                raise refusal(self.name, f"the tensor {key} {why[0]}")
            keys = found.setdefault(match[1], {})
            if match[2] in keys:
                raise refusal(self.name, f"the tensors {keys[match[2]]} and {key} are the same one")
            keys[match[2]] = key
        for module, keys in found.items():
            for letter in "AB":
                if letter not in keys:
                    raise refusal(self.name, f"the tensor lora_{letter} of {module} is missing")
        if not found:
            raise refusal(self.name, "it has no tensors")
        return [(module, (keys["A"], keys["B"])) for module, keys in found.items()]

    def _pair(
        self,
        module: str,
        keys: tuple[str, str],
        shapes: Mapping[str, tuple[int, ...]],
        config: Mapping[str, Any],
    ) -> Pair:
        try:
            rank = self._ranks.find(module, config["r"])
            alpha = self._alphas.find(module, config["lora_alpha"])
        except PatternError as error:
            raise refusal(self.name, f"a pattern of {CONFIG}: {error}") from None
        down, up = (shapes[key] for key in keys)
        if len(down) != 2 or down[0] != rank:
            raise refusal(
                self.name, f"the tensor {keys[0]} has the shape {list(down)} with a rank of {rank}"
            )
        if len(up) != 2 or up[1] != rank:
            raise refusal(
                self.name, f"the tensor {keys[1]} has the shape {list(up)} with a rank of {rank}"
            )
        scale = alpha / (rank**0.5 if config.get("use_rslora") else rank)
        return Pair(module, rank, down[1], up[0], scale, keys)


def refusal(name: str, why: str) -> StartupError:
    """The sentence for an adapter that cannot be served."""
    return StartupError(f"the adapter {name} cannot be served: {why}")


def _read(adapter: Adapter) -> dict[str, Any]:
    path = Path(adapter.directory) / CONFIG
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise refusal(adapter.name, f"{path} cannot be read ({error})") from None
    if not isinstance(config, dict):
        raise refusal(adapter.name, f"{path} is not a JSON object")
    return config


def _check(name: str, config: Mapping[str, Any]) -> None:
    """Raise StartupError unless it is a plain LoRA."""
    kind = config.get("peft_type")
    if kind != "LORA":
        raise refusal(name, f"its peft_type is {kind}, not LORA")
    for entry, why in _REFUSED.items():
        if config.get(entry) not in (None, False, [], {}):
            raise refusal(name, f"{why}; {_MERGE}")
    if config.get("bias", "none") != "none":
        raise refusal(name, f"it has trained biases (bias is {config['bias']}); {_MERGE}")
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_RESHAPES_MODEL):
        raise refusal(
            name,
            f"its training changed the model's own weights (init_lora_weights is {start}): save it"
            " with path_initial_model_for_weight_conversion",
        )
    for entry, whole in (("r", True), ("lora_alpha", False)):
        if not _is_positive(config.get(entry), whole):
            raise refusal(
                name, f"{entry} of {CONFIG} must be {_positive(whole)}, not {config.get(entry)!r}"
            )


def _patterns(name: str, config: Mapping[str, Any], entry: str, *, whole: bool) -> Patterns:
    """What an entry says of modules. Raises StartupError."""
    patterns = config.get(entry) or {}
    if not isinstance(patterns, dict) or not all(
        _is_positive(value, whole) for value in patterns.values()
    ):
        raise refusal(name, f"each value of {entry} of {CONFIG} must be {_positive(whole)}")
    try:
        return Patterns(patterns)
    except PatternError as error:
        raise refusal(name, f"{entry} of {CONFIG}: {error}") from None


def _is_positive(value: object, whole: bool) -> bool:
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        return False
    return 0 < value <= _LARGEST


def _positive(whole: bool) -> str:
    return "a positive integer" if whole else "a positive number"
