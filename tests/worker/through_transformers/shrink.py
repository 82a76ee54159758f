"""Makes the smallest configuration of any model type of transformers, by the names of its entries.

The numbers of a default configuration are replaced by small ones; of its layers those stay that
differ from all before (a sliding one and a full one, a dense one and one with experts). What does
not follow these names is in ``SPECIAL``, with a reason each.
"""

from typing import Any

from transformers import CONFIG_MAPPING, PreTrainedConfig

VOCABULARY = 128
HEADS = 4
KV_HEADS = 2
HEAD_DIM = 16
HIDDEN = HEADS * HEAD_DIM
LAYERS = 2
CONTEXT = 256
WINDOW = 8

_SIZES = (
    (VOCABULARY, "vocab_size decoder_vocab_size unpadded_vocab_size vocab_size_per_layer_input"),
    (
        HIDDEN,
        "hidden_size d_model n_embd dim_model embedding_size emb_dim hidden_dim embedding_dim"
        " word_embed_proj_dim input_embedding_size output_embedding_size backbone_hidden_size"
        " lru_width router_hidden_size",
    ),
    (
        96,
        "intermediate_size ffn_dim decoder_ffn_dim encoder_ffn_dim n_inner dff dim_ff d_inner"
        " ffn_hidden_size feed_forward_size expert_ffn_hidden_size intermediate_size_mlp"
        " dense_intermediate_size",
    ),
    (
        48,
        "moe_intermediate_size shared_expert_intermediate_size shared_intermediate_size"
        " shared_experts_intermediate_size moe_shared_expert_intermediate_size",
    ),
    (
        HEADS,
        "num_attention_heads n_head n_heads attention_heads decoder_attention_heads"
        " encoder_attention_heads num_decoder_attention_heads num_encoder_attention_heads"
        " num_query_groups index_n_heads linear_num_heads linear_num_value_heads"
        " swa_num_attention_heads n_routed_experts num_experts num_local_experts moe_num_experts"
        " zero_expert_num",
    ),
    (
        KV_HEADS,
        "num_key_value_heads num_kv_heads linear_num_key_heads swa_num_key_value_heads"
        " num_experts_per_tok num_experts_per_token moe_topk moe_k n_shared_experts"
        " num_shared_experts moe_num_shared_experts mamba_n_groups",
    ),
    (
        HEAD_DIM,
        "head_dim d_head dim_head d_kv kv_channels attention_head_size linear_head_dim"
        " linear_key_head_dim linear_value_head_dim qk_nope_head_dim v_head_dim global_head_dim"
        " index_head_dim swa_head_dim swa_v_head_dim hidden_size_per_layer_input laurel_rank"
        " kv_lora_rank q_lora_rank",
    ),
    (8, "qk_rope_head_dim rotary_dim mamba_dt_rank state_size mamba_d_state ssm_state_size"),
    (
        LAYERS,
        "num_hidden_layers n_layer n_layers num_layers decoder_layers encoder_layers"
        " num_decoder_layers num_encoder_layers",
    ),
    (
        CONTEXT,
        "max_position_embeddings n_positions max_seq_len model_max_length context_length n_ctx"
        " max_target_positions",
    ),
    (
        WINDOW,
        "sliding_window local_attention window_size attention_window_size attention_chunk_size"
        " index_topk keep_window_size",
    ),
    (1, "n_group topk_group num_expert_group"),
)
SMALL = {name: size for size, names in _SIZES for name in names.split()}

TOKENS = {"bos_token_id": 1, "eos_token_id": None, "pad_token_id": 0}

Entries = dict[str, Any]

_LFM2 = {"num_hidden_layers": 2, "layer_types": ["conv", "full_attention"]}
_QWEN4 = {
    "num_experts_per_tok": KV_HEADS,
    "indexer_n_heads": HEADS,
    "indexer_kv_heads": 1,
    "indexer_head_dim": HEAD_DIM,
    "indexer_budget": 8,
    "indexer_compress_ratio": 4,
    "ngram_vocab_size_base": 100,
    "split_ngram_parts": 4,
}

SPECIAL: dict[str, Entries] = {
    # Both kinds of layers, where no list says which kinds there are.
    "bamba": {"attn_layer_indices": [1]},
    "dory": {
        "num_hidden_layers": 3,
        "layer_types": ["sliding_attention", "full_attention", "full_attention"],
        "n_input_layers": 1,
        "n_recurrent_layers": 1,
        "n_output_layers": 1,
    },
    "gemma3n_text": {
        "num_hidden_layers": 4,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "num_kv_shared_layers": 2,
        "intermediate_size": [96] * 4,
        "activation_sparsity_pattern": [0.95, 0.0, 0.0, 0.0],
    },
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention"]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "lfm2": _LFM2,
    "lfm2_moe": {**_LFM2, "num_dense_layers": 1},
    "recurrent_gemma": {"num_hidden_layers": 3},
    # One width is the product of others.
    "mamba2": {"num_heads": 8, "head_dim": HEAD_DIM, "n_groups": 2},
    "xlstm": {"hidden_size": 128, "embedding_dim": 128, "num_heads": 2},
    # Numbers that must be equal, or must be there.
    "dbrx": {
        "attn_config": {"rope_theta": 1e4, "kv_n_heads": KV_HEADS, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 96, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "cohere_compass_text": {
        "rope_parameters": {
            "full_attention": None,
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        }
    },
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "qwen4_exp": {"text_config": _QWEN4},
    "qwen4_exp_text": _QWEN4,
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
    # Blocks that are shared need two places.
    "zamba": {
        "num_hidden_layers": 4,
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
    },
    # Hashes are drawn anew in every pass, unless from a seed.
    "reformer": {"attn_layers": ["local", "lsh"], "axial_pos_embds": False, "hash_seed": 0},
    # Large tables that are not vocabularies.
    "roc_bert": {"shape_vocab_size": 128, "pronunciation_vocab_size": 128},
    # Not causal by default.
    "xlm": {"causal": True},
}
"""By model type: entries that the rules above get wrong, and why."""


def tiny_config(model_type: str) -> PreTrainedConfig:
    """A small configuration; without tokens that would end a sequence."""
    return _shrunk(type(CONFIG_MAPPING[model_type]()), SPECIAL.get(model_type, {}))


def _shrunk(kind: type[PreTrainedConfig], special: Entries) -> PreTrainedConfig:
    default = kind()
    entries = default.to_dict()
    changes: Entries = {}
    for name, value in entries.items():
        if name in SMALL and isinstance(value, int) and not isinstance(value, bool) and value:
            changes[name] = min(SMALL[name], value)
        elif name in ("head_dim", "num_key_value_heads") and value is None:
            changes[name] = SMALL[name]
    if "qk_rope_head_dim" in changes and entries.get("head_dim") == entries["qk_rope_head_dim"]:
        changes["head_dim"] = changes["qk_rope_head_dim"]
    if "kv_lora_rank" in changes and "num_key_value_heads" in changes:
        changes["num_key_value_heads"] = changes["num_attention_heads"]
    if "is_decoder" in entries:
        changes["is_decoder"] = True
    changes |= _layers(entries)
    changes |= {name: value for name, value in TOKENS.items() if name in entries}
    changes |= special
    for name in kind.sub_configs:
        part = getattr(default, name, None)
        if isinstance(part, PreTrainedConfig):
            changes[name] = _shrunk(type(part), special.get(name, {}))
    return kind(**changes)


def _layers(entries: Entries) -> Entries:
    """Of the lists with an item per layer, the items of layers that are unlike those before."""
    name = next(
        (n for n in ("num_hidden_layers", "n_layer") if isinstance(entries.get(n), int)), ""
    )
    if not name:
        return {}
    count = entries[name]
    lists = {
        key: value
        for key, value in entries.items()
        if isinstance(value, list | tuple) and len(value) == count and count > LAYERS
    }
    if not lists:
        return {}
    seen: set[tuple[str, str]] = set()
    chosen: list[int] = []
    for layer in range(count):
        kinds = {(key, str(value[layer])) for key, value in lists.items()}
        if not kinds <= seen:
            chosen.append(layer)
        seen |= kinds
    chosen = chosen[:4]
    if len(chosen) < LAYERS:
        chosen.append(count - 1)
    return {name: len(chosen)} | {
        key: [value[layer] for layer in chosen] for key, value in lists.items()
    }
