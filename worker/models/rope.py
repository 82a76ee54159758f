"""From config.json to the rotary parameters of a model's layers.

Runs in the worker, once. Understands ``rope_scaling`` beside ``rope_theta`` (transformers 4) and
``rope_parameters`` (transformers 5). What cannot be run as it is meant is refused here.
"""

from collections.abc import Mapping
from typing import Any

from common.errors import StartupError
from worker.layers.rotary import KINDS, RotaryParameters
from worker.models.dialects import Dialect
from worker.models.entries import count, entry, number, numbers, optional_number

_GLOBAL, _LOCAL = "full_attention", "sliding_attention"
_ORIGINAL = "original_max_position_embeddings"


def rotaries(
    config: Mapping[str, Any],
    dialect: Dialect,
    *,
    head_dim: int,
    max_positions: int,
    scaling: str | None = None,
    factor: float | None = None,
) -> tuple[RotaryParameters | None, RotaryParameters | None]:
    """Of layers without a sliding window, and of layers with one.

    ``scaling`` (linear or dynamic) and ``factor`` replace the checkpoint's own scaling, of the
    layers without a window.
    """
    asked = scaling is not None or factor is not None
    if dialect.rotation == "none":
        if asked:
            raise StartupError(
                "this model has learned positions, which cannot be scaled: leave out rope_scaling"
                " and rope_factor"
            )
        return None, None
    rope = _object(_rope_of(config, dialect))
    local: Mapping[str, Any] = {}
    if _GLOBAL in rope or _LOCAL in rope:
        if dialect.rotation != "local":
            raise StartupError(
                "config.json: rope parameters by layer type are not supported in this architecture"
            )
        rope, local = _object(rope.get(_GLOBAL) or {}), _object(rope.get(_LOCAL) or {})
    theta = number(rope, "rope_theta", number(config, "rope_theta", 10_000.0))
    channels = _rotated(config, rope, dialect, head_dim)
    if asked:
        rope = {"rope_type": scaling or "linear", "factor": 1.0 if factor is None else factor}
    common = _parameters(config, rope, dialect, theta, channels, max_positions)
    if dialect.rotation != "local":
        return common, common
    theta = number(local, "rope_theta", number(config, "rope_local_base_freq"))
    return common, _parameters(config, local, dialect, theta, channels, max_positions)


def _rope_of(config: Mapping[str, Any], dialect: Dialect) -> Any:
    """The one entry or the other; where both are missing or null, what the architecture means."""
    rope = config.get("rope_scaling") or config.get("rope_parameters")
    return dialect.defaults.get("rope_parameters", {}) if rope is None else rope


def _object(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise StartupError("config.json: the rope parameters are not an object")
    return value


def _rotated(
    config: Mapping[str, Any], rope: Mapping[str, Any], dialect: Dialect, head_dim: int
) -> int:
    """Channels of a head that are rotated."""
    if head_dim % 2:
        raise StartupError(f"config.json: rotary embeddings need an even head_dim, not {head_dim}")
    key = "partial_rotary_factor"
    share = number(rope, key, number(config, key, 1.0))
    if share == 1:
        return head_dim
    if dialect.rotation != "partial":
        raise StartupError(
            "config.json: partial rotary embeddings are not supported in this architecture"
        )
    channels = int(head_dim * share)
    if not 0 < channels <= head_dim or channels % 2:
        raise StartupError(
            f"config.json: partial_rotary_factor {share} rotates {channels} of {head_dim} channels:"
            " an even number of them is needed"
        )
    return channels


def _parameters(
    config: Mapping[str, Any],
    rope: Mapping[str, Any],
    dialect: Dialect,
    theta: float,
    channels: int,
    max_positions: int,
) -> RotaryParameters:
    """Entries of the rope parameters go before those beside them."""
    kind = rope.get("rope_type", rope.get("type", "default"))
    if isinstance(kind, str):
        kind = dialect.rope_kinds.get(kind, kind)
    if kind not in KINDS:
        raise StartupError(
            f"rotary scaling {kind!r} is not supported; known are {', '.join(KINDS)}"
        )
    original = config.get(_ORIGINAL) or rope.get(_ORIGINAL)
    parameters = RotaryParameters(
        kind=kind,
        theta=theta,
        channels=channels,
        max_positions=max_positions,
        original_max_positions=count({_ORIGINAL: original}, _ORIGINAL, max_positions),
        factor=_factor(rope, kind, max_positions, original),
        low_frequency_factor=number(rope, "low_freq_factor", 1.0),
        high_frequency_factor=number(rope, "high_freq_factor", 4.0),
        attention_factor=optional_number(rope, "attention_factor"),
        beta_fast=number(rope, "beta_fast", 0.0) or 32.0,
        beta_slow=number(rope, "beta_slow", 0.0) or 1.0,
        mscale=number(rope, "mscale", 0.0),
        mscale_all_dimensions=number(rope, "mscale_all_dim", 0.0),
        truncate=bool(entry(rope, "truncate", True)),
        short_factors=numbers(rope, "short_factor") if kind == "longrope" else (),
    )
    _check(parameters)
    return parameters


def _factor(rope: Mapping[str, Any], kind: str, max_positions: int, original: Any) -> float:
    """The stretch; yarn and longrope may leave it to the ratio of the two contexts."""
    if kind == "default":
        return 1.0
    if kind in ("yarn", "longrope") and rope.get("factor") is None and original:
        return max_positions / float(original)
    factor = number(rope, "factor")
    if factor <= 0:
        raise StartupError(f"rotary scaling needs a factor greater than 0, not {factor}")
    return factor


def _check(parameters: RotaryParameters) -> None:
    kind, half = parameters.kind, parameters.channels // 2
    if parameters.theta <= 0:
        raise StartupError("config.json: rope_theta must be greater than 0")
    if kind == "llama3" and parameters.high_frequency_factor <= parameters.low_frequency_factor:
        raise StartupError("config.json: high_freq_factor must be greater than low_freq_factor")
    if kind == "dynamic" and half <= 1:
        raise StartupError("dynamic rotary scaling needs a head_dim greater than 2")
    if kind == "yarn":
        _check_yarn(parameters)
    if kind == "longrope":
        _check_longrope(parameters)


def _check_yarn(parameters: RotaryParameters) -> None:
    if parameters.theta == 1:
        raise StartupError("config.json: rotary scaling 'yarn' needs a rope_theta other than 1")
    if min(parameters.beta_fast, parameters.beta_slow) <= 0:
        raise StartupError("config.json: beta_fast and beta_slow must be greater than 0")


def _check_longrope(parameters: RotaryParameters) -> None:
    half = parameters.channels // 2
    if len(parameters.short_factors) != half:
        raise StartupError(
            f"config.json: rotary scaling 'longrope' needs a short_factor of {half} numbers"
        )
    if min(parameters.short_factors) <= 0:
        raise StartupError("config.json: short_factor must be greater than 0")
    if parameters.original_max_positions == 1:
        raise StartupError(
            "config.json: rotary scaling 'longrope' divides by the logarithm of"
            " original_max_position_embeddings, which must be greater than 1"
        )
