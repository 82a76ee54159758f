"""Whole tiny models on the Triton kernels, in the interpreter: the logits of the reference."""

import pytest
import torch

from tests.worker.models.families import FAMILIES
from tests.worker.paged import Paged
from tests.worker.tiny import write_tiny, write_tiny_llama
from worker import loading
from worker.kernels import select
from worker.kernels.reference.attention import PagedAttention
from worker.kernels.select import Choices
from worker.kernels.triton import decode

CPU = torch.device("cpu")


def write(kind, directory):
    if kind == "llama":
        write_tiny_llama(directory, num_hidden_layers=1, sliding_window=None)
    else:
        write_tiny(directory, FAMILIES[kind](), seed=2)


def logits_of(model):
    """A prompt in two chunks, then beside another sequence, both of which decode at last."""
    paged = Paged(model, blocks=12)
    first, second = paged.start(list(range(40, 64))), paged.start([7, 8, 9])
    found = [paged.step([(first, 17)], rows="all")]
    found.append(paged.step([(second, 2), (first, 5)]))
    found.append(paged.step([(first, 1), (second, 1)]))
    return torch.cat(found)


@pytest.fixture(autouse=True)
def _few_splits(monkeypatch):
    """Each program takes the interpreter milliseconds."""
    monkeypatch.setattr(decode, "_MOST_SPLITS", 2)


@pytest.mark.parametrize("kind", ["qwen3", "gemma2", "mixtral"])
def test_logits_of_a_model(kind, tmp_path, monkeypatch):
    write(kind, tmp_path)
    wanted = logits_of(loading.load_model(str(tmp_path), device=CPU, dtype=torch.float32))

    def on_gpu(device, dtype, library, sharding, choices):
        return select._on_gpu(select.reference(device, dtype, sharding), Choices())

    monkeypatch.setattr(loading, "select", on_gpu)
    model = loading.load_model(str(tmp_path), device=CPU, dtype=torch.float32)
    got = logits_of(model)
    assert not isinstance(model.decoder._attention.kernel, PagedAttention)
    assert (got - wanted).norm() / wanted.norm() < 1e-5


def test_a_model_over_a_cache_of_8_bits(tmp_path, monkeypatch):
    write("llama", tmp_path)
    choices = Choices(kv_dtype=torch.float8_e4m3fn)

    def load():
        return loading.load_model(str(tmp_path), device=CPU, dtype=torch.float32, choices=choices)

    plain = loading.load_model(str(tmp_path), device=CPU, dtype=torch.float32)
    reference = load()
    assert reference.block_bytes * 4 == plain.block_bytes
    wanted = logits_of(reference)

    def on_gpu(device, dtype, library, sharding, choices):
        return select._on_gpu(select.reference(device, dtype, sharding), choices)

    monkeypatch.setattr(loading, "select", on_gpu)
    got = logits_of(load())
    assert (got - wanted).norm() / wanted.norm() < 2e-3
    exact = logits_of(plain)
    assert 1e-3 < (wanted - exact).norm() / exact.norm() < 0.2
