"""From config.json to a class of transformers, or to the sentence why there is none.

Runs in the worker. Only classes that come with transformers: code beside the weights is not run.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig
from transformers.models.auto import modeling_auto

from common.errors import StartupError
from worker.layers.rotary import reach
from worker.models.configuration import contradiction, model_type_of

CAUSAL: Mapping[str, str] = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
"""The name of the class that generates text, by model type."""
_CONTEXT = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "max_target_positions",
    "n_ctx",
)
_UNBOUNDED = 1 << 20
"""Tokens: beyond every sequence that anybody asks for."""
_ENCODER_DECODER = frozenset(modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES.values())


def find(
    architecture: str, config: Mapping[str, Any], directory: Path
) -> tuple[Any, PreTrainedConfig]:
    """The class and its configuration. Raises StartupError with the reason if there is none."""
    kind = model_type_of(config)
    known = transformers.__version__
    if kind is None or kind not in CONFIG_MAPPING:
        if config.get("auto_map"):
            raise StartupError(
                f"{architecture} needs code that comes with its weights (auto_map of config.json),"
                " which is not run"
            )
        raise StartupError(
            f"the model type {kind!r} of config.json is not known to transformers {known}: a newer"
            " one may know it"
        )
    name = _causal_class(architecture, kind)
    if architecture in _ENCODER_DECODER and name != architecture:
        raise StartupError(f"{architecture} is an encoder and a decoder: only decoders are served")
    if name is None or (name != architecture and not _adopted(name, architecture, kind)):
        if name is not None and architecture in CAUSAL.values():
            raise contradiction(architecture, kind, name)
        raise StartupError(
            f"{architecture} does not generate text token after token"
            f" (of the model type {kind!r}, {name or 'nothing'} does)"
        )
    return getattr(transformers, name), _read(directory, architecture)


def _causal_class(architecture: str, kind: str) -> str | None:
    """The class that generates text with models of a type, which may be a part of another type."""
    if kind not in CAUSAL and architecture in CAUSAL.values():
        part: str = getattr(transformers, architecture).config_class.model_type
        return architecture if part == kind else None
    return CAUSAL.get(kind)


def _adopted(name: str, architecture: str, kind: str) -> bool:
    """Whether transformers runs a type, whose own code it does not have, with another's class."""
    return (
        not hasattr(transformers, architecture)
        and getattr(transformers, name).config_class.model_type != kind
    )


def _read(directory: Path, architecture: str) -> PreTrainedConfig:
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(
            directory, trust_remote_code=False, local_files_only=True
        )
    except Exception as error:  # whatever the class's checks raise
        raise StartupError(f"config.json is not one of {architecture}: {error}") from None
    return config


def context_of(config: PreTrainedConfig) -> int:
    """The longest sequence; without a bound by the configuration, as long as any."""
    text = config.get_text_config(decoder=True)
    values = (getattr(text, name, None) for name in _CONTEXT)
    longest = next((n for n in values if isinstance(n, int) and n > 0), _UNBOUNDED)
    rope: Mapping[str, Any] = getattr(text, "rope_parameters", None) or {}
    for kind in (rope, *(kind for kind in rope.values() if isinstance(kind, Mapping))):
        original = int(kind.get("original_max_position_embeddings") or longest)
        factor = kind.get("factor") or 1.0
        longest = reach(kind.get("rope_type", "default"), longest, original, factor)
    return longest
