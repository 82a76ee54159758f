"""Angles against transformers' own, position by position."""

import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from tests.worker.models.variants import VARIANTS
from worker.layers.rotary import Rotary, RotaryParameters
from worker.models.configuration import parse

CPU = torch.device("cpu")


def pair(rope, **settings):
    config = LlamaConfig(
        hidden_size=64,
        num_attention_heads=4,
        intermediate_size=8,
        vocab_size=8,
        num_hidden_layers=1,
        max_position_embeddings=512,
        rope_parameters=dict(rope),
        architectures=["LlamaForCausalLM"],
        **settings,
    )
    parameters = parse(config.to_dict(), dtype=torch.float32).rotary
    return Rotary(parameters, CPU, torch.float32), LlamaRotaryEmbedding(config)


def plain(rotary, positions):
    """Cosines and sines as transformers has them: sines of both halves positive."""
    cosines, sines = rotary.at(positions, int(positions.max()) + 1)
    sines = sines.clone()
    sines[..., : sines.shape[-1] // 2] *= -1
    return cosines[:, 0], sines[:, 0]


@pytest.mark.parametrize("name", [name for name in VARIANTS if "rope_parameters" in VARIANTS[name]])
def test_angles_are_theirs(name):
    ours, theirs = pair(VARIANTS[name]["rope_parameters"])
    positions = torch.arange(512)
    wanted = theirs(torch.zeros(1), positions[None])
    for got, want in zip(plain(ours, positions), wanted, strict=True):
        assert (got - want[0]).abs().max() < 2e-4
        assert (got - want[0])[:64].abs().max() < 1e-5


def test_dynamic_beyond_the_context_is_theirs_token_by_token():
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    ours, theirs = pair(rope)
    for position in (511, 512, 513, 700, 1023, 1024, 3000):
        wanted = theirs(torch.zeros(1), torch.tensor([[position]]))
        for got, want in zip(plain(ours, torch.tensor([position])), wanted, strict=True):
            assert (got - want[0]).abs().max() < 1e-3


def test_the_table_grows_and_stays_the_same():
    ours, _ = pair({"rope_type": "default", "rope_theta": 10000.0})
    before = plain(ours, torch.arange(100))
    ours.at(torch.tensor([70000]), 70001)
    after = plain(ours, torch.arange(100))
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_the_dtype_is_the_models():
    ours, _ = pair({"rope_type": "default", "rope_theta": 10000.0})
    half = Rotary(ours._parameters, CPU, torch.bfloat16)
    cosines, sines = half.at(torch.tensor([3]), 4)
    assert cosines.dtype == sines.dtype == torch.bfloat16
    assert torch.equal(cosines, ours.at(torch.tensor([3]), 4)[0].bfloat16())


def test_positions_beyond_the_limit_have_no_angles():
    parameters = RotaryParameters(
        kind="longrope",
        theta=10000.0,
        channels=8,
        max_positions=4096,
        original_max_positions=1500,
        factor=2.0,
        short_factors=(1.0, 2.0, 3.0, 4.0),
    )
    rotary = Rotary(parameters, CPU, torch.float32)
    cosines, _ = rotary.at(torch.tensor([1499]), 1500)
    assert torch.isfinite(cosines).all()
    with pytest.raises(ValueError, match="1500"):
        rotary.at(torch.tensor([1500]), 1501)
