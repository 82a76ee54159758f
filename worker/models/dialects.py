"""How each architecture writes its config.json: names, what a missing entry means, what is refused.

Runs in the worker, once. One table over the entries that ``configuration`` reads, in Llama's names;
the defaults are those of transformers' configuration classes, which leave out what equals them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from common.errors import StartupError
from worker.kernels.reference.activation import LIMIT, SLOPE
from worker.layers.mixture import MixtureForm

_SILU = ("silu", "swish")
_GELU = ("gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh")
_OFF = (None, False)
_OPTIONAL = frozenset(
    [
        *("attention_bias", "mlp_bias", "norm_topk_prob", "decoder_sparse_step", "mlp_only_layers"),
        *("query_pre_attn_scalar", "attn_logit_softcapping", "final_logit_softcapping"),
    ]
)
"""Entries that change results in some architectures and that others do not look at, whose files may
have them all the same."""

Rotation = Literal["none", "whole", "partial", "local"]
"""None at all, of all channels, of some, or of all with a base of their own in sliding layers."""
Windows = Literal["none", "all", "switched", "listed", "last", "pattern"]
"""Layers with a sliding window: none, all, all if switched on, all again, the last ones if switched
on, or all but every n-th. ``layer_types`` goes before the last three."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """What one architecture's config.json has of its own."""

    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Other names of an entry; the first that is there counts, Llama's name does not."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """What a missing entry means; null is an answer."""
    allowed: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Entries that change results in ways not supported, and the values that do not."""
    optional: frozenset[str] = frozenset()
    """Of those entries, the ones that this architecture looks at."""
    activations: tuple[str, ...] = _SILU
    rotation: Rotation = "whole"
    rope_kinds: Mapping[str, str] = field(default_factory=dict)
    """Other names of kinds of scaling."""
    windows: Windows = "none"
    pattern: int = 0
    """With ``pattern``: every so many-th layer has no window."""
    qkv_bias: bool | None = None
    """Biases of the query, key and value projections alone; None: ``attention_bias`` decides."""
    activation: str | None = None
    """What ``hidden_act`` stands for; None: itself."""
    sinks: bool = False
    mixture: MixtureForm | None = None
    widening: int | None = None
    """Width of the feed-forward block in hidden sizes where intermediate_size is not given."""

    def read(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The entries in Llama's names. Raises StartupError for what is not supported."""
        for key, values in self.allowed.items():
            if key in config and config[key] not in values:
                raise StartupError(f"config.json: {key} {config[key]!r} is not supported")
        entries = {k: v for k, v in config.items() if k in self.optional or k not in _OPTIONAL}
        for name, others in self.names.items():
            entries.pop(name, None)
            present = [config[other] for other in others if other in config]
            if present:
                entries[name] = present[0]
        return {**self.defaults, **entries}


_GEMMA = {
    "rms_norm_eps": 1e-6,
    "hidden_act": "gelu_pytorch_tanh",
    "tie_word_embeddings": True,
    "head_dim": 256,
    "num_key_value_heads": 4,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
}
_GEMMA_NAMES = {"hidden_act": ("hidden_activation",)}
_GEMMA_OPTIONAL = frozenset(
    ["attention_bias", "query_pre_attn_scalar", "attn_logit_softcapping", "final_logit_softcapping"]
)
_GEMMA_ACTIVATIONS = ("gelu_pytorch_tanh", "gelu")
_CAUSAL = {"use_bidirectional_attention": _OFF}

_GPT_OSS_ROPE = {
    "rope_type": "yarn",
    "factor": 32.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
    "original_max_position_embeddings": 4096,
}

_BIAS = frozenset(["attention_bias"])

LLAMA = Dialect(optional=_BIAS | {"mlp_bias"})
"""Of every architecture that is not in the table."""

DIALECTS: dict[str, Dialect] = {
    "MistralForCausalLM": Dialect(
        defaults={"num_key_value_heads": 8, "sliding_window": 4096}, windows="listed"
    ),
    "MixtralForCausalLM": Dialect(
        names={"moe_intermediate_size": ("intermediate_size",)},
        defaults={
            "num_key_value_heads": 8,
            "rms_norm_eps": 1e-5,
            "rope_theta": 1e6,
            "num_local_experts": 8,
            "num_experts_per_tok": 2,
            "norm_topk_prob": True,
        },
        windows="all",
        mixture=MixtureForm.PLAIN,
    ),
    "Qwen2ForCausalLM": Dialect(
        defaults={"sliding_window": 4096, "max_window_layers": 28}, windows="last", qkv_bias=True
    ),
    "Qwen3ForCausalLM": Dialect(
        defaults={"head_dim": 128, "sliding_window": 4096, "max_window_layers": 28},
        optional=_BIAS,
        windows="last",
    ),
    "Qwen3MoeForCausalLM": Dialect(
        names={"num_local_experts": ("num_local_experts", "num_experts")},
        defaults={
            "num_key_value_heads": 4,
            "sliding_window": 4096,
            "num_local_experts": 128,
            "num_experts_per_tok": 8,
            "moe_intermediate_size": 768,
        },
        optional=_BIAS | {"norm_topk_prob", "decoder_sparse_step", "mlp_only_layers"},
        windows="switched",
        mixture=MixtureForm.PLAIN,
    ),
    "Olmo2ForCausalLM": Dialect(defaults={"rms_norm_eps": 1e-5}, optional=_BIAS),
    "Phi3ForCausalLM": Dialect(
        defaults={"rms_norm_eps": 1e-5, "original_max_position_embeddings": 4096},
        rotation="partial",
        rope_kinds={"su": "longrope", "yarn": "longrope"},
        windows="all",
    ),
    "Gemma2ForCausalLM": Dialect(
        names=_GEMMA_NAMES,
        defaults={**_GEMMA, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
        allowed=_CAUSAL,
        optional=_GEMMA_OPTIONAL,
        activations=_GEMMA_ACTIVATIONS,
        windows="pattern",
        pattern=2,
    ),
    "Gemma3ForCausalLM": Dialect(
        names={
            **_GEMMA_NAMES,
            "sliding_window_pattern": ("sliding_window_pattern", "_sliding_window_pattern"),
        },
        defaults={**_GEMMA, "rope_theta": 1e6, "rope_local_base_freq": 1e4},
        allowed={**_CAUSAL, "attn_logit_softcapping": (None,)},
        optional=_GEMMA_OPTIONAL,
        activations=_GEMMA_ACTIVATIONS,
        rotation="local",
        windows="pattern",
        pattern=6,
    ),
    "GptOssForCausalLM": Dialect(
        names={"moe_intermediate_size": ("intermediate_size",)},
        defaults={
            "head_dim": 64,
            "num_key_value_heads": 8,
            "max_position_embeddings": 131_072,
            "rms_norm_eps": 1e-5,
            "rope_theta": 150_000.0,
            "rope_parameters": _GPT_OSS_ROPE,
            "attention_bias": True,
            "sliding_window": 128,
            "num_local_experts": 128,
            "num_experts_per_tok": 4,
            "norm_topk_prob": True,
        },
        allowed={"swiglu_alpha": (None, SLOPE), "swiglu_limit": (None, LIMIT)},
        optional=_BIAS,
        activation="clamped_silu",
        windows="pattern",
        pattern=2,
        sinks=True,
        mixture=MixtureForm.INTERLEAVED,
    ),
    "GPT2LMHeadModel": Dialect(
        names={
            "hidden_size": ("n_embd", "hidden_size"),
            "num_attention_heads": ("n_head", "num_attention_heads"),
            "num_hidden_layers": ("n_layer", "num_hidden_layers"),
            "max_position_embeddings": ("n_positions", "max_position_embeddings"),
            "intermediate_size": ("n_inner",),
            "rms_norm_eps": ("layer_norm_epsilon",),
            "hidden_act": ("activation_function",),
        },
        defaults={
            "max_position_embeddings": 1024,
            "rms_norm_eps": 1e-5,
            "hidden_act": "gelu_new",
            "tie_word_embeddings": True,
        },
        allowed={
            "scale_attn_weights": (None, True),
            "scale_attn_by_inverse_layer_idx": _OFF,
            "add_cross_attention": _OFF,
        },
        activations=(*_GELU, "relu"),
        rotation="none",
        qkv_bias=True,
        widening=4,
    ),
    "GPTNeoXForCausalLM": Dialect(
        names={
            "rms_norm_eps": ("layer_norm_eps",),
            "rope_theta": ("rotary_emb_base", "rope_theta"),
            "partial_rotary_factor": ("rotary_pct", "partial_rotary_factor"),
        },
        defaults={
            "rms_norm_eps": 1e-5,
            "hidden_act": "gelu",
            "partial_rotary_factor": 0.25,
            "attention_bias": True,
            "use_parallel_residual": True,
        },
        optional=_BIAS,
        activations=(*_GELU, "relu"),
        rotation="partial",
    ),
}
"""By the name in ``architectures`` of config.json."""
