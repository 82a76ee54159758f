"""Quantized checkpoints of families that lay their matrices out otherwise than Llama does."""

import pytest
import torch

from tests.worker.models.families import FAMILIES
from tests.worker.paged import Paged
from tests.worker.quantization import writers
from tests.worker.quantization.writers import quantized
from tests.worker.tiny import write_tiny
from worker.kernels.cpu.library import load as load_kernels
from worker.layers.linear import matrices
from worker.loading import load_model
from worker.sharding import Sharding

CPU = torch.device("cpu")
PROMPT = list(b"once upon a time")
PLAIN = ("lm_head", "embed", "norm", "ln_", "wte", "wpe", ".gate.weight")
"""What quantizers leave as it is."""
FORMATS = {
    "gptq": writers.gptq(group=16, symmetric=False),
    "in the order of importance": writers.gptq(symmetric=False, shuffled=True),
    "awq": writers.awq(8),
    "packed": writers.packed(symmetric=False),
    "fp8": writers.fp8("block", (48, 64)),
    "nf4": writers.nf4(),
    "bitsandbytes, int8": writers.scb(),
}
PLAIN_MATRICES = {"mixtral": 3, "qwen3_moe": 3}
"""Output layer and routers; of others the output layer alone."""
CHOSEN = ("qwen3", "olmo2", "phi3", "gemma2", "gemma3", "mixtral", "qwen3_moe", "gpt_neox", "gpt2")


@pytest.fixture(scope="module", params=CHOSEN)
def family(request, tmp_path_factory):
    """Its name, and where a plain checkpoint of it is."""
    directory = tmp_path_factory.mktemp(request.param)
    write_tiny(directory, FAMILIES[request.param](), seed=2)
    return request.param, directory


@pytest.fixture(scope="module")
def library(kept):
    """The kernels of this machine, if it has any."""
    return load_kernels([kept])


def load(directory, **options):
    return load_model(str(directory), device=CPU, dtype=torch.float32, **options)


def logits(model):
    paged = Paged(model)
    return paged.step([(paged.start(PROMPT), len(PROMPT))], rows="all")


@pytest.mark.parametrize("name", FORMATS)
def test_equals_its_twin(family, tmp_path, name):
    kind, source = family
    coded, plain = quantized(source, tmp_path, *FORMATS[name], skip=PLAIN, turn=kind == "gpt2")
    found, wanted = load(coded), load(plain)
    assert Paged(found).generate(PROMPT, 12) == Paged(wanted).generate(PROMPT, 12)
    assert (logits(found) - logits(wanted)).abs().max() < 1e-3
    kinds = [matrix.is_coded for matrix in matrices(found)]
    if "order" not in name:  # there q, k and v, or gate and up, may be in orders of their own
        assert kinds.count(False) == PLAIN_MATRICES.get(kind, 1)
    assert any(kinds)


@pytest.mark.parametrize("name", ["gptq", "fp8", "bitsandbytes, int8"])
def test_equals_its_twin_in_c(family, library, tmp_path, name):
    """One of each coding: nibbles, floats, integers."""
    kind, source = family
    coded, plain = quantized(source, tmp_path, *FORMATS[name], skip=PLAIN, turn=kind == "gpt2")
    found, wanted = load(coded, library=library), load(plain)
    assert (logits(found) - logits(wanted)).abs().max() < 1e-3


def test_all_matrices_are_made_codes(family):
    kind, source = family
    model = load(source, quantize="bitsandbytes")
    kinds = [matrix.is_coded for matrix in matrices(model)]
    assert kinds.count(False) == PLAIN_MATRICES.get(kind, 1) - 1  # all but the routers
    assert (logits(model) - logits(load(source))).abs().max() < 0.2


@pytest.mark.parametrize("name", ["gptq", "nf4"])
def test_shards_have_their_parts(family, tmp_path, name):
    kind, source = family
    coded, plain = quantized(source, tmp_path, *FORMATS[name], skip=PLAIN, turn=kind == "gpt2")
    for rank in range(2):
        sharding = Sharding(rank, 2)
        found, wanted = (list(matrices(load(path, sharding=sharding))) for path in (coded, plain))
        for one, other in zip(found, wanted, strict=True):
            x = torch.randn(3, one.inputs)
            assert (one.operation(x) - other.operation(x)).abs().max() < 1e-4
