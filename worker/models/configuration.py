"""A model's configuration: ``config.json`` read once, checked, and frozen.

Understands the files of transformers 4 (``torch_dtype``, ``rope_theta``, ``rope_scaling``) and of
transformers 5 (``dtype``, ``rope_parameters``). What cannot be run as it is meant is refused here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from common.errors import StartupError
from worker.devices import DTYPES
from worker.layers.attention import AttentionShape
from worker.layers.rotary import KINDS, RotaryParameters

_MOST_LAYERS = 1024
"""No model has so many: building them would only take long."""
_NO_DEFAULT = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfiguration:
    """What a decoder is built from."""

    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_position_embeddings: int
    norm_epsilon: float
    activation: str
    attention_bias: bool
    mlp_bias: bool
    tied_embeddings: bool
    eos_token_ids: tuple[int, ...]
    rotary: RotaryParameters
    dtype: torch.dtype
    """That the model computes in."""

    @property
    def attention(self) -> AttentionShape:
        """Heads of every layer."""
        return AttentionShape(self.num_heads, self.num_kv_heads, self.head_dim)


def architecture_of(config: Mapping[str, Any]) -> str:
    """The name that the registry knows a model by, or a StartupError."""
    names = config.get("architectures")
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        raise StartupError("config.json names no architecture: 'architectures' is missing or empty")
    return names[0]


def checkpoint_dtype(config: Mapping[str, Any]) -> torch.dtype | None:
    """The dtype that the checkpoint says it is in, if it says."""
    name = config.get("dtype") or config.get("torch_dtype")
    return DTYPES.get(name.removeprefix("torch.")) if isinstance(name, str) else None


def parse(
    config: Mapping[str, Any],
    *,
    dtype: torch.dtype,
    rope_scaling: str | None = None,
    rope_factor: float | None = None,
) -> ModelConfiguration:
    """Read a configuration of the Llama kind; StartupError names the entry that is wrong.

    ``rope_scaling`` (linear or dynamic) and ``rope_factor`` replace the checkpoint's own scaling.
    """
    if config.get("quantization_config"):
        raise StartupError("the checkpoint is quantized (quantization_config): not supported yet")
    heads = _count(config, "num_attention_heads")
    hidden_size = _count(config, "hidden_size")
    kv_heads = _count(config, "num_key_value_heads", heads)
    if heads % kv_heads:
        raise StartupError(
            f"config.json: {heads} attention heads cannot be shared by {kv_heads} key-value heads"
        )
    if config.get("head_dim") is None and hidden_size % heads:
        raise StartupError(
            f"config.json: hidden_size {hidden_size} is not a multiple of {heads} attention heads"
        )
    head_dim = _count(config, "head_dim", hidden_size // heads)
    if head_dim % 2:
        raise StartupError(f"config.json: rotary embeddings need an even head_dim, not {head_dim}")
    max_positions = _count(config, "max_position_embeddings")
    return ModelConfiguration(
        architecture=architecture_of(config),
        vocab_size=_count(config, "vocab_size"),
        hidden_size=hidden_size,
        intermediate_size=_count(config, "intermediate_size"),
        num_layers=_count(config, "num_hidden_layers"),
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        max_position_embeddings=max_positions,
        norm_epsilon=_number(config, "rms_norm_eps", 1e-6),
        activation=str(config.get("hidden_act") or "silu"),
        attention_bias=_switch(config, "attention_bias"),
        mlp_bias=_switch(config, "mlp_bias"),
        tied_embeddings=_switch(config, "tie_word_embeddings"),
        eos_token_ids=_token_ids(config, "eos_token_id"),
        rotary=_rotary(config, head_dim, max_positions, rope_scaling, rope_factor),
        dtype=dtype,
    )


def _rotary(
    config: Mapping[str, Any],
    head_dim: int,
    max_positions: int,
    scaling: str | None,
    factor: float | None,
) -> RotaryParameters:
    """Entries of ``rope_parameters`` (or ``rope_scaling``) go before those beside it."""
    rope: Mapping[str, Any] = config.get("rope_scaling") or config.get("rope_parameters") or {}
    if not isinstance(rope, Mapping):
        raise StartupError("config.json: the rope parameters are not an object")
    theta = _number(rope, "rope_theta", _number(config, "rope_theta", 10_000.0))
    share = rope.get("partial_rotary_factor", config.get("partial_rotary_factor"))
    if share not in (None, 1):
        raise StartupError("config.json: partial rotary embeddings are not supported")
    if scaling is not None or factor is not None:
        rope = {"rope_type": scaling or "linear", "factor": 1.0 if factor is None else factor}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in KINDS:
        raise StartupError(
            f"rotary scaling {kind!r} is not supported; known are {', '.join(KINDS)}"
        )
    original = config.get("original_max_position_embeddings") or rope.get(
        "original_max_position_embeddings"
    )
    parameters = RotaryParameters(
        kind=kind,
        theta=theta,
        head_dim=head_dim,
        max_positions=max_positions,
        original_max_positions=_count({"x": original}, "x", max_positions),
        factor=_factor(rope, kind, max_positions, original),
        low_frequency_factor=_number(rope, "low_freq_factor", 1.0),
        high_frequency_factor=_number(rope, "high_freq_factor", 4.0),
        attention_factor=_optional_number(rope, "attention_factor"),
        beta_fast=_number(rope, "beta_fast", 32.0),
        beta_slow=_number(rope, "beta_slow", 1.0),
        mscale=_number(rope, "mscale", 0.0),
        mscale_all_dimensions=_number(rope, "mscale_all_dim", 0.0),
        truncate=bool(rope.get("truncate", True)),
    )
    if kind == "llama3" and parameters.high_frequency_factor <= parameters.low_frequency_factor:
        raise StartupError("config.json: high_freq_factor must be greater than low_freq_factor")
    if kind == "dynamic" and head_dim <= 2:
        raise StartupError("dynamic rotary scaling needs a head_dim greater than 2")
    return parameters


def _factor(rope: Mapping[str, Any], kind: str, max_positions: int, original: Any) -> float:
    """The stretch; yarn may leave it to the ratio of the two contexts."""
    if kind == "default":
        return 1.0
    if kind == "yarn" and rope.get("factor") is None and original:
        return max_positions / float(original)
    factor = _number(rope, "factor", _NO_DEFAULT)
    if factor <= 0:
        raise StartupError(f"rotary scaling needs a factor greater than 0, not {factor}")
    return factor


# --- entries ----------------------------------------------------------------------------------


def _count(config: Mapping[str, Any], key: str, default: Any = _NO_DEFAULT) -> int:
    """A positive integer; ``default`` stands in for a missing entry or null."""
    value = _entry(config, key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise StartupError(f"config.json: {key} must be a positive integer, not {value!r}")
    if key == "num_hidden_layers" and value > _MOST_LAYERS:
        raise StartupError(f"config.json: {value} layers are more than {_MOST_LAYERS}")
    return value


def _number(config: Mapping[str, Any], key: str, default: Any) -> float:
    value = _entry(config, key, default)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise StartupError(f"config.json: {key} must be a number, not {value!r}")
    return float(value)


def _optional_number(config: Mapping[str, Any], key: str) -> float | None:
    return None if config.get(key) is None else _number(config, key, None)


def _switch(config: Mapping[str, Any], key: str) -> bool:
    value = _entry(config, key, False)
    if not isinstance(value, bool):
        raise StartupError(f"config.json: {key} must be true or false, not {value!r}")
    return value


def _token_ids(config: Mapping[str, Any], key: str) -> tuple[int, ...]:
    value = config.get(key)
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(item, int) and not isinstance(item, bool) for item in ids):
        raise StartupError(f"config.json: {key} must be a token id or a list of them")
    return tuple(ids)


def _entry(config: Mapping[str, Any], key: str, default: Any) -> Any:
    value = config.get(key)
    if value is None:
        value = default
    if value is _NO_DEFAULT:
        raise StartupError(f"config.json: {key} is missing")
    return value
