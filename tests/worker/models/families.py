"""A tiny configuration of every family, with whatever makes it different from Llama switched on.

Windows are shorter than the prompts of the tests, and not a multiple of a block's 16 tokens.
"""

from collections.abc import Callable
from typing import Any

from transformers import (
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    GptOssConfig,
    MistralConfig,
    MixtralConfig,
    Olmo2Config,
    Phi3Config,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
)

from tests.worker.tiny import VOCABULARY

_TOKENS: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
_SIZES: dict[str, Any] = _TOKENS | {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
_NEOX = {key: value for key, value in _SIZES.items() if key != "num_key_value_heads"}


def _longrope(original: int) -> dict[str, Any]:
    return {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0, 1.1, 1.3, 1.6, 2.0, 2.5, 3.0, 4.0],
        "long_factor": [8.0] * 8,
        "original_max_position_embeddings": original,
    }


_YARN = {
    "rope_type": "yarn",
    "rope_theta": 150000.0,
    "factor": 4.0,
    "truncate": False,
    "original_max_position_embeddings": 128,
}

FAMILIES: dict[str, Callable[[], PreTrainedConfig]] = {
    "mistral": lambda: MistralConfig(**_SIZES, sliding_window=24),
    "mistral_without_window": lambda: MistralConfig(**_SIZES, sliding_window=None),
    "ministral": lambda: MistralConfig(
        **_SIZES, sliding_window=24, layer_types=["full_attention", "sliding_attention"]
    ),
    "qwen2": lambda: Qwen2Config(
        **_SIZES | {"num_hidden_layers": 3},
        use_sliding_window=True,
        sliding_window=20,
        max_window_layers=1,
    ),
    "qwen2_tied": lambda: Qwen2Config(**_SIZES, tie_word_embeddings=True),
    "qwen3": lambda: Qwen3Config(**_SIZES, head_dim=24),
    "qwen3_window": lambda: Qwen3Config(
        **_SIZES,
        head_dim=16,
        use_sliding_window=True,
        sliding_window=33,
        layer_types=["sliding_attention", "full_attention"],
    ),
    "olmo2": lambda: Olmo2Config(**_SIZES),
    "phi3": lambda: Phi3Config(
        **_SIZES,
        sliding_window=40,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.5,
        },
    ),
    "phi3_longrope": lambda: Phi3Config(
        **_SIZES, original_max_position_embeddings=256, rope_parameters=_longrope(256)
    ),
    "gemma2": lambda: Gemma2Config(
        **_SIZES | {"num_hidden_layers": 3},
        head_dim=24,
        query_pre_attn_scalar=40,
        sliding_window=20,
        attn_logit_softcapping=5.0,
        final_logit_softcapping=4.0,
    ),
    "gemma3": lambda: Gemma3TextConfig(
        **_SIZES | {"num_hidden_layers": 3},
        head_dim=24,
        query_pre_attn_scalar=40,
        sliding_window=20,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        rope_parameters={
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
    ),
    "mixtral": lambda: MixtralConfig(
        **_SIZES, num_local_experts=4, num_experts_per_tok=2, sliding_window=24
    ),
    "gpt_oss": lambda: GptOssConfig(
        **_SIZES,
        head_dim=16,
        num_local_experts=4,
        num_experts_per_tok=2,
        sliding_window=24,
        rope_parameters=_YARN,
    ),
    "qwen3_moe": lambda: Qwen3MoeConfig(
        **_SIZES | {"num_hidden_layers": 3},
        head_dim=24,
        num_experts=6,
        num_experts_per_tok=3,
        moe_intermediate_size=40,
        mlp_only_layers=[1],
    ),
    "qwen3_moe_normalized": lambda: Qwen3MoeConfig(
        **_SIZES,
        head_dim=16,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=40,
        norm_topk_prob=True,
        use_sliding_window=True,
        sliding_window=24,
    ),
    "gpt2": lambda: GPT2Config(**_TOKENS, n_embd=64, n_layer=2, n_head=4, n_positions=512),
    "gpt_neox": lambda: GPTNeoXConfig(**_NEOX),
    "gpt_neox_serial": lambda: GPTNeoXConfig(
        **_NEOX,
        use_parallel_residual=False,
        attention_bias=False,
        tie_word_embeddings=True,
        hidden_act="gelu_new",
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 500.0,
            "partial_rotary_factor": 0.5,
        },
    ),
}
"""By name."""
