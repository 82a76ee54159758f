"""config.json of both styles, and what is refused."""

import pytest
import torch

from common.errors import StartupError
from worker.models.configuration import architecture_of, checkpoint_dtype, parse

BASE = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 100,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "max_position_embeddings": 2048,
}


def read(**changes):
    config = {key: value for key, value in (BASE | changes).items() if value is not ...}
    return parse(config, dtype=torch.float32)


def test_defaults():
    configuration = read()
    assert configuration.num_kv_heads == 8
    assert configuration.head_dim == 8
    assert configuration.eos_token_ids == ()
    assert not configuration.tied_embeddings
    assert configuration.rotary.kind == "default"
    assert configuration.rotary.theta == 10_000.0
    assert read(head_dim=None, num_key_value_heads=None) == configuration


def test_both_styles_of_rope_parameters_are_one():
    scaling = {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 256,
    }
    new = read(rope_parameters={"rope_type": "llama3", "rope_theta": 5e5, **scaling})
    old = read(rope_theta=5e5, rope_scaling={"rope_type": "llama3", **scaling})
    older = read(rope_theta=5e5, rope_scaling={"type": "llama3", **scaling})
    assert new == old == older
    assert new.rotary.theta == 5e5
    assert new.rotary.original_max_positions == 256
    assert read(rope_theta=5e5, rope_scaling=None).rotary.theta == 5e5


def test_yarn_may_leave_its_factor_to_the_contexts():
    rope = {"rope_type": "yarn", "original_max_position_embeddings": 512, "factor": None}
    assert read(rope_scaling=rope).rotary.factor == 4.0


def test_yarn_reaches_as_far_as_it_stretches():
    rope = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}
    configuration = read(rope_scaling=rope)
    assert configuration.max_position_embeddings == 4096
    assert configuration.rotary.max_positions == 2048
    assert read(rope_scaling=rope | {"factor": 1.5}).max_position_embeddings == 2048


def test_turns_of_yarn_that_are_0_are_not_given():
    rope = {"rope_type": "yarn", "factor": 4.0}
    assert read(rope_scaling=rope | {"beta_fast": 0, "beta_slow": 0}) == read(rope_scaling=rope)


@pytest.mark.parametrize(
    ("scaling", "factor", "kind", "wanted"),
    [
        ("linear", 2.0, "linear", 2.0),
        ("dynamic", 3.0, "dynamic", 3.0),
        ("dynamic", None, "dynamic", 1.0),
        (None, 2.0, "linear", 2.0),
        (None, None, "llama3", 8.0),
    ],
)
def test_settings_replace_the_checkpoints_scaling(scaling, factor, kind, wanted):
    rope = {"rope_type": "llama3", "factor": 8.0, "rope_theta": 5e5}
    rotary = parse(
        BASE | {"rope_parameters": rope},
        dtype=torch.float32,
        rope_scaling=scaling,
        rope_factor=factor,
    ).rotary
    assert (rotary.kind, rotary.factor, rotary.theta) == (kind, wanted, 5e5)


@pytest.mark.parametrize(
    ("scaling", "factor", "longest"),
    [("linear", 2.5, 5120), ("dynamic", 2.0, 4096), ("dynamic", None, 2048), ("linear", 0.5, 2048)],
)
def test_a_scaling_that_was_asked_for_makes_sequences_longer(scaling, factor, longest):
    configuration = parse(BASE, dtype=torch.float32, rope_scaling=scaling, rope_factor=factor)
    assert configuration.max_position_embeddings == longest
    assert configuration.rotary.max_positions == 2048


def test_ends_and_dtypes():
    assert read(eos_token_id=2).eos_token_ids == (2,)
    assert read(eos_token_id=[2, 3]).eos_token_ids == (2, 3)
    assert checkpoint_dtype({"dtype": "bfloat16"}) == torch.bfloat16
    assert checkpoint_dtype({"torch_dtype": "float16"}) == torch.float16
    assert checkpoint_dtype({"torch_dtype": "torch.float32"}) == torch.float32
    assert checkpoint_dtype({"torch_dtype": None}) is None


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"hidden_size": ...}, "hidden_size is missing"),
        ({"hidden_size": "64"}, "hidden_size must be a positive integer"),
        ({"vocab_size": 0}, "vocab_size"),
        ({"num_hidden_layers": True}, "num_hidden_layers"),
        ({"num_key_value_heads": 3}, "3 key-value heads"),
        ({"hidden_size": 65}, "not a multiple"),
        ({"head_dim": 7}, "even head_dim"),
        ({"attention_bias": "yes"}, "attention_bias"),
        ({"rms_norm_eps": "tiny"}, "rms_norm_eps"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps"),
        ({"rope_theta": 10**400}, "rope_theta"),
        ({"eos_token_id": "</s>"}, "eos_token_id"),
        ({"rope_scaling": {"rope_type": "longrope", "factor": 2.0}}, "longrope"),
        ({"rope_scaling": {"rope_type": "ntk", "factor": 2.0}}, "'ntk' is not supported"),
        ({"rope_parameters": {"full_attention": {}}}, "by layer type"),
        ({"rope_scaling": {"rope_type": ["x"], "factor": 2.0}}, "not supported"),
        ({"rope_scaling": {"rope_type": "linear"}}, "factor is missing"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 0}}, "greater than 0"),
        ({"rope_scaling": {"type": "linear", "factor": "2"}}, "factor must be a number"),
        ({"rope_scaling": "linear"}, "not an object"),
        ({"rope_parameters": []}, "not an object"),
        (
            {"rope_scaling": {"type": "yarn", "factor": 2, "original_max_position_embeddings": 0}},
            "original_max_position_embeddings must be",
        ),
        ({"rope_theta": 0}, "rope_theta must be greater than 0"),
        (
            {"rope_theta": 1, "rope_scaling": {"type": "yarn", "factor": 2}},
            "rope_theta other than 1",
        ),
        (
            {"rope_scaling": {"type": "yarn", "factor": 2, "beta_fast": -1}},
            "beta_fast and beta_slow",
        ),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial"),
        ({"partial_rotary_factor": 0.5}, "partial"),
        (
            {"rope_scaling": {"type": "llama3", "factor": 2, "high_freq_factor": 1}},
            "high_freq_factor",
        ),
    ],
)
def test_what_is_refused(changes, named):
    with pytest.raises(StartupError, match=named):
        read(**changes)


def family(architecture, **changes):
    return read(architectures=[architecture], **changes)


def test_what_a_missing_entry_means():
    mistral = family("MistralForCausalLM")
    assert mistral.windows == (4096, 4096)
    assert mistral.num_kv_heads == 8
    assert family("MistralForCausalLM", sliding_window=None).windows == (None, None)
    assert family("MixtralForCausalLM").windows == (None, None)
    assert family("MixtralForCausalLM").rotary.theta == 1e6
    gemma = family("Gemma2ForCausalLM")
    assert gemma.windows == (4096, None)
    assert (gemma.attention_cap, gemma.logit_cap) == (50.0, 30.0)
    assert gemma.attention_scale == 256**-0.5
    assert gemma.tied_embeddings
    assert gemma.head_dim == 256
    assert family("Gemma2ForCausalLM", final_logit_softcapping=None).logit_cap is None
    gemma = family("Gemma3ForCausalLM", num_hidden_layers=7)
    assert gemma.windows == (4096,) * 5 + (None, 4096)
    assert (gemma.rotary.theta, gemma.local_rotary.theta) == (1e6, 1e4)
    assert family("GPTNeoXForCausalLM").rotary.channels == 2
    assert family("GPTNeoXForCausalLM").parallel_residual
    assert family("Olmo2ForCausalLM").norm_epsilon == 1e-5


def test_gpt_oss_stretches_its_positions_unless_it_is_told_not_to():
    sizes = {"architectures": ["GptOssForCausalLM"], "head_dim": 64}
    yarn = read(**sizes).rotary
    assert (yarn.kind, yarn.theta, yarn.factor, yarn.truncate) == ("yarn", 150_000, 32, False)
    assert read(**sizes, rope_parameters=None).rotary == yarn
    assert read(**sizes, rope_parameters={}).rotary.kind == "default"


def test_gpt2_in_its_own_names():
    config = {
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": 100,
        "n_embd": 64,
        "n_layer": 3,
        "n_head": 4,
        "n_inner": None,
        "layer_norm_epsilon": 1e-3,
    }
    configuration = parse(config, dtype=torch.float32)
    assert configuration.hidden_size == 64
    assert configuration.intermediate_size == 256
    assert configuration.num_layers == 3
    assert configuration.head_dim == 16
    assert configuration.max_position_embeddings == 1024
    assert configuration.norm_epsilon == 1e-3
    assert configuration.activation == "gelu_new"
    assert configuration.rotary is None
    assert configuration.tied_embeddings
    with pytest.raises(StartupError, match="learned positions"):
        parse(config, dtype=torch.float32, rope_factor=2.0)


def test_windows_of_some_layers():
    switched = {"use_sliding_window": True, "sliding_window": 32}
    assert family("Qwen2ForCausalLM", sliding_window=32).windows == (None, None)
    assert family("Qwen2ForCausalLM", **switched, max_window_layers=1).windows == (None, 32)
    types = ["sliding_attention", "full_attention"]
    assert family("MistralForCausalLM", sliding_window=32, layer_types=types).windows == (32, None)
    assert family("Qwen3ForCausalLM", **switched, layer_types=types).windows == (32, None)
    moe = {"moe_intermediate_size": 8, "num_experts": 4, "num_experts_per_tok": 2}
    assert family("Qwen3MoeForCausalLM", **moe, **switched).windows == (32, 32)
    with pytest.raises(StartupError, match="no sliding_window"):
        family("Qwen3ForCausalLM", layer_types=types)
    with pytest.raises(StartupError, match="chunked_attention"):
        family("Qwen3ForCausalLM", layer_types=["chunked_attention"] * 2)
    with pytest.raises(StartupError, match="kind of 2 layers"):
        family("Gemma3ForCausalLM", layer_types=["full_attention"])


def test_which_layers_are_mixtures():
    moe = family("Qwen3MoeForCausalLM", num_hidden_layers=6, num_experts=4, num_experts_per_tok=2)
    assert moe.mixture_layers == frozenset(range(6))
    assert moe.mixture.width == 768
    assert not moe.mixture.normalized
    changes = {"num_hidden_layers": 6, "decoder_sparse_step": 2, "mlp_only_layers": [3]}
    assert family("Qwen3MoeForCausalLM", **changes).mixture_layers == frozenset({1, 5})
    mixtral = family("MixtralForCausalLM")
    assert (mixtral.mixture.width, mixtral.mixture.normalized) == (128, True)
    with pytest.raises(StartupError, match="more than the 2 experts"):
        family("MixtralForCausalLM", num_local_experts=2, num_experts_per_tok=3)
    assert read(num_local_experts=4).mixture is None


@pytest.mark.parametrize(
    ("architecture", "changes"),
    [
        ("Qwen2ForCausalLM", {"attention_bias": True, "mlp_bias": True}),
        ("MistralForCausalLM", {"attention_bias": True, "final_logit_softcapping": 30.0}),
        ("LlamaForCausalLM", {"query_pre_attn_scalar": 64, "attn_logit_softcapping": 50.0}),
        ("MixtralForCausalLM", {"norm_topk_prob": False, "mlp_only_layers": [0]}),
        ("GPT2LMHeadModel", {"final_logit_softcapping": 30.0}),
    ],
)
def test_entries_that_an_architecture_does_not_look_at(architecture, changes):
    assert family(architecture, **changes) == family(architecture)


LONGROPE = {"type": "su", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}


def test_longrope_ends_with_the_original_context():
    phi = family("Phi3ForCausalLM", rope_scaling=LONGROPE, original_max_position_embeddings=512)
    assert phi.max_position_embeddings == 512
    assert phi.rotary.kind == "longrope"
    assert phi.rotary.factor == 4.0


@pytest.mark.parametrize(
    ("architecture", "changes", "named"),
    [
        ("GPT2LMHeadModel", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse"),
        ("GPT2LMHeadModel", {"activation_function": "silu"}, "'silu' is not supported"),
        ("Gemma2ForCausalLM", {"use_bidirectional_attention": True}, "bidirectional"),
        ("Gemma3ForCausalLM", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
        ("Gemma2ForCausalLM", {"attn_logit_softcapping": 0}, "greater than 0"),
        ("GPTNeoXForCausalLM", {"rotary_pct": 0.4}, "even number"),
        ("GPTNeoXForCausalLM", {"rotary_pct": 1.5}, "rotates 12 of 8"),
        ("Phi3ForCausalLM", {"rope_scaling": LONGROPE | {"short_factor": [1.0]}}, "of 4 numbers"),
        ("Phi3ForCausalLM", {"rope_scaling": LONGROPE | {"short_factor": 1.0}}, "list of numbers"),
        (
            "Phi3ForCausalLM",
            {"rope_scaling": LONGROPE | {"short_factor": [0.0] * 4}},
            "greater than 0",
        ),
        (
            "Phi3ForCausalLM",
            {"rope_scaling": LONGROPE, "original_max_position_embeddings": 1},
            "original_max_position_embeddings, which must be greater than 1",
        ),
        ("MistralForCausalLM", {"sliding_window": 0}, "sliding_window"),
        ("Qwen3MoeForCausalLM", {"mlp_only_layers": 3}, "mlp_only_layers"),
    ],
)
def test_what_a_family_refuses(architecture, changes, named):
    with pytest.raises(StartupError, match=named):
        family(architecture, **changes)


@pytest.mark.parametrize("names", [..., None, [], "LlamaForCausalLM", [3]])
def test_no_architecture(names):
    with pytest.raises(StartupError, match="architecture"):
        architecture_of({"architectures": names} if names is not ... else {})
