"""Every family on the C kernels: its stack in one call, its layers one by one, and transformers."""

import pytest
import torch

from tests.worker.kernels.stacks import long_prompts, run, threads
from tests.worker.models.comparing import CPU, expected, load, prompt
from tests.worker.models.families import FAMILIES
from tests.worker.paged import Paged
from tests.worker.speculation.exact import check_disturbed
from tests.worker.tiny import write_tiny
from worker.loading import load_model

MIXTURES = ["gpt_oss", "mixtral", "qwen3_moe", "qwen3_moe_normalized"]
DENSE = [name for name in FAMILIES if name not in MIXTURES]
PARTS = ["qwen3", "olmo2", "gemma2", "gemma3", "gpt2", "gpt_neox", "gpt_neox_serial"]
"""Families with a part that Llama has not."""
SIZES = {"even": {}, "odd": {"hidden_size": 160, "num_attention_heads": 10}}
"""Odd: not a power of two, and where they can be other than heads, five query heads to one."""


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Writes a family's tiny checkpoint, once, with heads that attention in C takes."""
    found = {}

    def write(name, size="even", dtype=torch.bfloat16):
        if (name, size, dtype) not in found:
            configuration = FAMILIES[name]()
            for key, value in SIZES[size].items():
                setattr(configuration, key, value)
            if size == "odd" and hasattr(configuration, "num_key_value_heads"):
                configuration.num_key_value_heads = 2
            if getattr(configuration, "head_dim", None) in (16, 24):
                configuration.head_dim = 48
            if name == "gpt2":
                configuration.n_positions = 2048
            directory = tmp_path_factory.mktemp(name)
            write_tiny(directory, configuration, seed=2, dtype=dtype)
            found[name, size, dtype] = directory
        return found[name, size, dtype]

    return write


def model_of(directory, library, dtype=torch.bfloat16):
    return load_model(str(directory), device=CPU, dtype=dtype, library=library)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", DENSE)
def test_a_stack_equals_its_layers_one_by_one(library, dtype, written, name, size):
    """Also where every buffer between the layers was full of what is no number."""
    model = model_of(written(name, size), library, dtype)
    fused = model.decoder._fused
    together = run(model)
    with torch.inference_mode():
        for buffer in fused._buffers:
            buffer.fill_(torch.nan)
    assert torch.equal(run(model), together)
    model.decoder._fused = None
    assert torch.equal(run(model), together)


@pytest.mark.parametrize("name", ["olmo2", "gemma3", "gpt2", "gpt_neox"])
def test_threads_that_work_apart(library, dtype, written, name):
    model = model_of(written(name), library, dtype)
    with threads(2):
        together = long_prompts(model)
        model.decoder._fused = None
        assert torch.equal(long_prompts(model), together)


@pytest.mark.parametrize("name", PARTS)
def test_a_stack_is_near_transformers(bfloat16, written, name):
    """Both round, at different places, so only far off would be wrong."""
    directory = written(name)
    _, theirs = load(directory, torch.float32)
    ids = prompt(60)
    wanted = expected(theirs, ids)
    paged = Paged(model_of(directory, bfloat16))
    sequence = paged.start(ids)
    got = [paged.step([(sequence, count)], rows="all") for count in (30, 29, 1)]
    difference = (torch.cat(got) - wanted).square().mean().sqrt()
    assert difference < 0.1 * wanted.std()


@pytest.mark.parametrize("name", PARTS)
def test_in_float32_generation_is_theirs(library, written, name):
    directory = written(name, dtype=torch.float32)
    ours = model_of(directory, library, torch.float32)
    _, theirs = load(directory, torch.float32)
    ids = prompt(40)
    tokens = theirs.generate(
        torch.tensor([ids]), max_new_tokens=16, do_sample=False, pad_token_id=0
    )[0, 40:].tolist()
    assert Paged(ours).generate(ids, 16, chunk=25) == tokens


@pytest.mark.parametrize("name", MIXTURES)
def test_mixtures_of_experts_run_one_by_one(library, dtype, written, name):
    model = model_of(written(name), library, dtype)
    assert model.decoder._fused is None
    assert run(model).isfinite().all()


def test_drafts_change_no_token(library, written):
    """In float32: several queries of a sequence against keys and values of its blocks."""
    directory = written("qwen2", dtype=torch.float32)
    check_disturbed(model_of(directory, library, torch.float32), 4, 1, count=8)
