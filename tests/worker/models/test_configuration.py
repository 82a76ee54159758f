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
        ({"eos_token_id": "</s>"}, "eos_token_id"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantized"),
        ({"rope_scaling": {"rope_type": "longrope", "factor": 2.0}}, "longrope"),
        ({"rope_scaling": {"rope_type": ["x"], "factor": 2.0}}, "not supported"),
        ({"rope_scaling": {"rope_type": "linear"}}, "factor is missing"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 0}}, "greater than 0"),
        ({"rope_scaling": {"type": "linear", "factor": "2"}}, "factor must be a number"),
        ({"rope_scaling": "linear"}, "not an object"),
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


@pytest.mark.parametrize("names", [..., None, [], "LlamaForCausalLM", [3]])
def test_no_architecture(names):
    with pytest.raises(StartupError, match="architecture"):
        architecture_of({"architectures": names} if names is not ... else {})
