"""Tiny models on a GPU in float32: greedy text is that of transformers' ``generate`` there."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.worker.models.families import FAMILIES
from tests.worker.paged import Paged
from tests.worker.tiny import VOCABULARY, write_tiny, write_tiny_llama
from worker.kernels.select import Choices
from worker.loading import load_model

GPU = torch.device("cuda")
TOKENS = 24
PROMPTS = [[17, 30, 99], list(range(40, 103)), [5] * 16 + [200]]


@pytest.fixture(params=["llama", *FAMILIES])
def directory(request, tmp_path):
    if request.param == "llama":
        write_tiny_llama(tmp_path)
    else:
        write_tiny(tmp_path, FAMILIES[request.param](), seed=2)
    return tmp_path


def theirs(directory, prompt):
    # Not every version's default attention knows caps of scores (Gemma 2), and its default for
    # experts is made for 16 bits.
    plain = {"attn_implementation": "eager", "experts_implementation": "eager"}
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, **plain)
    model = model.to(GPU).eval()
    ids = torch.tensor([prompt], device=GPU)
    with torch.inference_mode():
        whole = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=TOKENS
        )
    return whole[0, len(prompt) :].tolist()


def test_greedy_text_is_that_of_generate(directory):
    ours = load_model(str(directory), device=GPU, dtype=torch.float32)
    for prompt in PROMPTS:
        wanted = theirs(directory, prompt)
        assert Paged(ours, device=GPU).generate(prompt, TOKENS) == wanted
        assert Paged(ours, device=GPU).generate(prompt, TOKENS, chunk=7) == wanted


def test_without_our_kernels_the_text_is_the_same(tmp_path):
    write_tiny_llama(tmp_path)
    plain = load_model(
        str(tmp_path), device=GPU, dtype=torch.float32, choices=Choices(custom=False)
    )
    assert Paged(plain, device=GPU).generate(PROMPTS[1], TOKENS) == theirs(tmp_path, PROMPTS[1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_cache_of_8_bits_is_near(dtype, tmp_path):
    write_tiny_llama(tmp_path)
    choices = Choices(kv_dtype=torch.float8_e4m3fn)
    narrow = load_model(str(tmp_path), device=GPU, dtype=dtype, choices=choices)
    wide = load_model(str(tmp_path), device=GPU, dtype=dtype)
    found = []
    for model in (narrow, wide):
        paged = Paged(model, device=GPU)
        sequence = paged.start(PROMPTS[1])
        found.append(paged.step([(sequence, len(PROMPTS[1]))], rows="all"))
    assert found[0].shape == (len(PROMPTS[1]), VOCABULARY)
    assert (found[0] - found[1]).norm() / found[1].norm() < 0.2
