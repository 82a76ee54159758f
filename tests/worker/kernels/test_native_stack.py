"""A whole stack in one call, against the same kernels one by one."""

import os

import pytest
import torch

from tests.worker.kernels.stacks import CONFIG, long_prompts, run, threads
from worker.kernels.select import Choices, select
from worker.models.configuration import parse
from worker.models.llama import LlamaForCausalLM


def model_of(library, dtype=torch.bfloat16, kv_dtype=None, **changes):
    """A random model; every weight from one generator."""
    configuration = parse({**CONFIG, **changes}, dtype=dtype)
    choices = Choices(kv_dtype=kv_dtype)
    kernels = select(torch.device("cpu"), dtype, library, choices=choices)
    model = LlamaForCausalLM(configuration, kernels)
    model.kv_dtype = kv_dtype
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        for slot in model.slots():
            scale = 1.0 if len(slot.shape) == 1 else slot.shape[-1] ** -0.5
            slot.fill(torch.randn(slot.shape, generator=generator) * scale)
    model.finish()
    return model


@pytest.mark.parametrize(
    "changes",
    [{}, {"attention_bias": True}, {"sliding_window": 20, "model_type": "mistral"},
     {"tie_word_embeddings": True, "num_key_value_heads": 4}],
)  # fmt: skip
def test_equals_the_layers_one_by_one(library, dtype, changes):
    model = model_of(library, dtype, **changes)
    assert model.decoder._fused is not None
    together = run(model)
    model.decoder._fused = None
    assert torch.equal(run(model), together)


def test_keys_and_values_in_bfloat16_beside_float32(library):
    """As one by one, and near to float32 throughout, but not the same."""
    model = model_of(library, torch.float32, torch.bfloat16)
    assert model.decoder._fused is not None
    together = run(model)
    model.decoder._fused = None
    assert torch.equal(run(model), together)
    wide = run(model_of(library, torch.float32))
    assert 0 < (together - wide).norm() / wide.norm() < 0.01


def test_heads_that_attention_in_c_does_not_take(library, dtype):
    """The linear layers would do, the reference's plan would not."""
    model = model_of(library, dtype, head_dim=24, num_attention_heads=8, num_key_value_heads=4)
    assert model.decoder._fused is None
    assert run(model).isfinite().all()


def test_threads_that_outnumber_processors(library, dtype):
    """Some of them cannot run while others wait for them, and fall asleep."""
    model = model_of(library, dtype)
    alone = run(model)
    with threads(4 * (os.cpu_count() or 1)):
        assert torch.equal(run(model), alone)


@pytest.mark.parametrize("tokens", [520, 1100])
def test_threads_that_work_apart(library, dtype, tokens):
    """From 256 rows a thread on; the last token's logits alone, and those of all tokens."""
    model = model_of(library, dtype, max_position_embeddings=2048)
    with threads(2):
        together = long_prompts(model, tokens)
        model.decoder._fused = None
        assert torch.equal(long_prompts(model, tokens), together)
