"""A model's configuration: ``config.json`` read once, checked, and frozen.

Runs in the worker. Understands the files of transformers 4 (``torch_dtype``, ``rope_theta``,
``rope_scaling``) and of transformers 5 (``dtype``, ``rope_parameters``), in the dialect of each
architecture. What cannot be run as it is meant is refused here, or in ``rope``.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from common.errors import StartupError
from worker.cache import LayerShape
from worker.devices import DTYPES
from worker.kernels.reference.attention import AttentionShape
from worker.layers.attention import LayerAttention
from worker.layers.mixture import MixtureShape
from worker.layers.rotary import RotaryParameters
from worker.models.dialects import DIALECTS, LLAMA, Dialect
from worker.models.entries import count, number, optional_count, positive, switch, token_ids
from worker.models.rope import rotaries
from worker.sharding import Units

_LAYER_TYPES = ("full_attention", "sliding_attention")


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
    """The longest sequence that is computed as it is meant."""
    norm_epsilon: float
    activation: str
    qkv_bias: bool
    output_bias: bool
    mlp_bias: bool
    tied_embeddings: bool
    eos_token_ids: tuple[int, ...]
    rotary: RotaryParameters | None
    """Of layers without a sliding window; None: positions are learned."""
    local_rotary: RotaryParameters | None
    """Of layers with one."""
    windows: tuple[int | None, ...]
    """Per layer: how many of the latest tokens are seen, itself included."""
    attention_scale: float
    attention_cap: float | None
    """Scores s become cap · tanh(s / cap)."""
    logit_cap: float | None
    """The same for logits."""
    sinks: bool
    """Heads have a logit of their own in each softmax, which brings no value."""
    mixture: MixtureShape | None
    mixture_layers: frozenset[int]
    """Layers whose feed-forward block is the mixture."""
    parallel_residual: bool
    """Attention and feed-forward block read the same residual."""
    dtype: torch.dtype
    """That the model computes in."""

    @property
    def attention(self) -> AttentionShape:
        """Of every layer."""
        return AttentionShape(
            self.num_heads,
            self.num_kv_heads,
            self.head_dim,
            self.attention_scale,
            self.attention_cap,
        )

    @property
    def kv_layers(self) -> tuple[LayerShape, ...]:
        """What the cache holds of each layer."""
        return (LayerShape(self.num_kv_heads, self.head_dim),) * self.num_layers

    @property
    def queries(self) -> Units:
        """Of a layer: all heads side by side."""
        return Units(self.num_heads, self.head_dim)

    @property
    def keys(self) -> Units:
        """Of a layer, and its values."""
        return Units(self.num_kv_heads, self.head_dim)

    @property
    def layer_attention(self) -> tuple[LayerAttention, ...]:
        """What the layers' attention differs in."""
        return tuple(
            LayerAttention(self.rotary if window is None else self.local_rotary, window)
            for window in self.windows
        )


def architecture_of(config: Mapping[str, Any]) -> str:
    """The name that the registry knows a model by, or a StartupError."""
    names = config.get("architectures")
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        raise StartupError("config.json names no architecture: 'architectures' is missing or empty")
    return names[0]


def model_type_of(config: Mapping[str, Any]) -> str | None:
    """The name that transformers knows a configuration by, if it has one, or a StartupError."""
    name = config.get("model_type")
    if not isinstance(name, str | None):
        raise StartupError(f"config.json: model_type must be a name, not {name!r}")
    return name


def contradiction(architecture: str, model_type: str, family: str) -> StartupError:
    """What to raise where the model type is that of ``family``, another architecture."""
    return StartupError(
        f"config.json contradicts itself: 'architectures' names {architecture}, but the model_type"
        f" {model_type!r} is that of {family}: correct the one that is wrong"
    )


def checkpoint_dtype(config: Mapping[str, Any]) -> torch.dtype | None:
    """The dtype that the checkpoint says it is in, if it says."""
    name = config.get("dtype") or config.get("torch_dtype")
    return DTYPES.get(name.removeprefix("torch.")) if isinstance(name, str) else None


def check_plain(
    config: Mapping[str, Any], *, rope_scaling: str | None, rope_factor: float | None
) -> None:
    """Raise StartupError for what only models with a declaration of ours could do."""
    if rope_scaling is not None or rope_factor is not None:
        raise StartupError(
            f"rope_scaling and rope_factor cannot be set for {architecture_of(config)}, which runs"
            " through transformers: change rope_parameters in its config.json"
        )


def parse(
    config: Mapping[str, Any],
    *,
    dtype: torch.dtype,
    rope_scaling: str | None = None,
    rope_factor: float | None = None,
) -> ModelConfiguration:
    """Read a configuration; StartupError names the entry that is wrong.

    ``rope_scaling`` (linear or dynamic) and ``rope_factor`` replace the checkpoint's own scaling.
    """
    architecture = architecture_of(config)
    dialect = DIALECTS.get(architecture, LLAMA)
    config = dialect.read(config)
    heads, kv_heads, head_dim = _heads(config)
    hidden_size, num_layers = count(config, "hidden_size"), count(config, "num_hidden_layers")
    max_positions = count(config, "max_position_embeddings")
    rotary, local_rotary = rotaries(
        config,
        dialect,
        head_dim=head_dim,
        max_positions=max_positions,
        scaling=rope_scaling,
        factor=rope_factor,
    )
    if rotary is not None:
        max_positions = rotary.reach
    if rope_factor is not None and rope_factor > 1:
        max_positions = math.floor(max_positions * rope_factor)
    attention_bias = switch(config, "attention_bias")
    mixture, mixture_layers = _mixture(config, dialect, num_layers)
    width = dialect.widening and dialect.widening * hidden_size
    return ModelConfiguration(
        architecture=architecture,
        vocab_size=count(config, "vocab_size"),
        hidden_size=hidden_size,
        intermediate_size=count(config, "intermediate_size", *([width] if width else [])),
        num_layers=num_layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        max_position_embeddings=max_positions,
        norm_epsilon=number(config, "rms_norm_eps", 1e-6),
        activation=_activation(config, dialect),
        qkv_bias=attention_bias if dialect.qkv_bias is None else dialect.qkv_bias,
        output_bias=attention_bias,
        mlp_bias=switch(config, "mlp_bias"),
        tied_embeddings=switch(config, "tie_word_embeddings"),
        eos_token_ids=token_ids(config, "eos_token_id"),
        rotary=rotary,
        local_rotary=local_rotary,
        windows=_windows(config, dialect, num_layers),
        attention_scale=(positive(config, "query_pre_attn_scalar") or head_dim) ** -0.5,
        attention_cap=positive(config, "attn_logit_softcapping"),
        logit_cap=positive(config, "final_logit_softcapping"),
        sinks=dialect.sinks,
        mixture=mixture,
        mixture_layers=mixture_layers,
        parallel_residual=switch(config, "use_parallel_residual"),
        dtype=dtype,
    )


def _heads(config: Mapping[str, Any]) -> tuple[int, int, int]:
    """Query heads, key-value heads, channels of each."""
    heads = count(config, "num_attention_heads")
    hidden_size = count(config, "hidden_size")
    kv_heads = count(config, "num_key_value_heads", heads)
    if heads % kv_heads:
        raise StartupError(
            f"config.json: {heads} attention heads cannot be shared by {kv_heads} key-value heads"
        )
    if config.get("head_dim") is None and hidden_size % heads:
        raise StartupError(
            f"config.json: hidden_size {hidden_size} is not a multiple of {heads} attention heads"
        )
    return heads, kv_heads, count(config, "head_dim", hidden_size // heads)


def _activation(config: Mapping[str, Any], dialect: Dialect) -> str:
    name = str(config.get("hidden_act") or dialect.activations[0])
    if name not in dialect.activations:
        known = ", ".join(dialect.activations)
        raise StartupError(
            f"config.json: the activation (hidden_act) {name!r} is not supported, only {known}"
        )
    return dialect.activation or name


def _windows(
    config: Mapping[str, Any], dialect: Dialect, num_layers: int
) -> tuple[int | None, ...]:
    """The sliding window of each layer."""
    if dialect.windows == "none":
        return (None,) * num_layers
    window = optional_count(config, "sliding_window")
    if dialect.windows in ("switched", "last") and not switch(config, "use_sliding_window"):
        window = None
    if dialect.windows in ("all", "switched"):
        return (window,) * num_layers
    if config.get("layer_types") is not None:
        return _by_layer_types(config["layer_types"], window, num_layers)
    if dialect.windows == "listed":
        return (window,) * num_layers
    if dialect.windows == "last":
        full = number(config, "max_window_layers")
        sliding = [layer >= full for layer in range(num_layers)]
    else:
        every = count(config, "sliding_window_pattern", dialect.pattern)
        sliding = [(layer + 1) % every != 0 for layer in range(num_layers)]
    return tuple(window if slides else None for slides in sliding)


def _by_layer_types(types: Any, window: int | None, num_layers: int) -> tuple[int | None, ...]:
    if not isinstance(types, list) or len(types) != num_layers:
        raise StartupError(f"config.json: layer_types must name the kind of {num_layers} layers")
    for name in types:
        if name not in _LAYER_TYPES:
            raise StartupError(f"config.json: the kind {name!r} in layer_types is not supported")
    if "sliding_attention" in types and window is None:
        raise StartupError("config.json: layer_types has sliding layers but no sliding_window")
    return tuple(window if name == "sliding_attention" else None for name in types)


def _mixture(
    config: Mapping[str, Any], dialect: Dialect, num_layers: int
) -> tuple[MixtureShape | None, frozenset[int]]:
    """The mixture of experts, and the layers that have it."""
    if not dialect.mixture:
        return None, frozenset()
    shape = MixtureShape(
        experts=count(config, "num_local_experts"),
        chosen=count(config, "num_experts_per_tok"),
        width=count(config, "moe_intermediate_size"),
        normalized=switch(config, "norm_topk_prob"),
        form=dialect.mixture,
    )
    if shape.chosen > shape.experts:
        raise StartupError(
            f"config.json: num_experts_per_tok {shape.chosen} is more than the {shape.experts}"
            " experts"
        )
    every = count(config, "decoder_sparse_step", 1)
    dense = config.get("mlp_only_layers") or []
    if not isinstance(dense, list):
        raise StartupError("config.json: mlp_only_layers must be a list of layers")
    layers = {layer for layer in range(num_layers) if (layer + 1) % every == 0}
    return shape, frozenset(layers - set(dense))
