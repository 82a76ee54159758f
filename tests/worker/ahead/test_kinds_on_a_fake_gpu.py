"""Kinds of models and of requests on a fake GPU: nobody waits, and nothing is compiled late."""

import inspect
import sys
from types import SimpleNamespace

import pytest
import torch
from torch.nn.attention.varlen import varlen_attn

from common.sampling import SamplingParameters
from tests.worker.ahead.fake_gpu import GPU, fake_gpu
from tests.worker.ahead.on_fake_gpu import PROMPT, SIZES, OnGPU
from tests.worker.grammars import byte_guidance, regex
from tests.worker.models.families import FAMILIES
from tests.worker.quantization import writers
from tests.worker.texts import SAMPLED
from tests.worker.tiny import write_tiny, write_tiny_llama
from worker.kernels.flashinfer import FlashInferAttention
from worker.kernels.select import Choices
from worker.kernels.varlen import VarlenAttention
from worker.quantization.registry import AT_LOAD

STORED = {
    "gptq": writers.gptq(),
    "gptq, in the order of importance": writers.gptq(symmetric=False, shuffled=True),
    "awq": writers.awq(),
    "fp8": writers.fp8("block", (48, 64)),
    "packed": writers.packed(symmetric=False),
    "int8": writers.int8(),
    "nf4": writers.nf4(nested=True),
}
EVERYTHING = SamplingParameters(
    do_sample=True, seed=1, temperature=0.7, min_p=0.1, top_k=5, top_p=0.5, typical_p=0.4,
    repetition_penalty=1.2, frequency_penalty=0.1, output_presence_penalty=0.1, min_new_tokens=3,
    logit_bias={3: 1.0}, watermark=True, top_n_tokens=2,
)  # fmt: skip


@pytest.fixture
def llama(tmp_path):
    directory = tmp_path / "llama"
    directory.mkdir()
    write_tiny_llama(directory, num_hidden_layers=1)
    return directory


@pytest.mark.parametrize(
    ("kind", "rows"),
    [*((kind, 40) for kind in sorted(AT_LOAD)), ("eetq", 4), ("bitsandbytes-nf4", 4)],
)
def test_weights_that_are_made_codes(kind, rows, llama, monkeypatch):
    """With few rows, steps that read a little are larger than any in which all decode."""
    with fake_gpu(monkeypatch) as forms:
        there = OnGPU(llama, monkeypatch, forms, rows=rows, quantize=kind)
        there.several(min(rows, 6))
    assert "_coded_linear" in {form[0] for form in forms}
    there.check()


@pytest.mark.parametrize("name", sorted(STORED))
def test_weights_that_are_codes(name, llama, tmp_path, monkeypatch):
    coded, _ = writers.quantized(llama, tmp_path, *STORED[name])
    with fake_gpu(monkeypatch) as forms:
        there = OnGPU(coded, monkeypatch, forms)
        there.several()
    assert "_coded_linear" in {form[0] for form in forms}
    there.check()


@pytest.mark.parametrize(
    ("family", "kv_dtype"), [("qwen2", torch.float8_e4m3fn), ("gemma2", torch.float8_e5m2)]
)
def test_a_cache_of_8_bits(family, kv_dtype, tmp_path, monkeypatch):
    write_tiny(tmp_path, FAMILIES[family]())
    with fake_gpu(monkeypatch) as forms:
        there = OnGPU(tmp_path, monkeypatch, forms, choices=Choices(kv_dtype=kv_dtype))
        there.several()
    there.check()


def test_some_rows_ask_for_what_others_do_not(llama, monkeypatch):
    """One kind of sampling beside greedy rows, then the next, of a worker that started once."""
    with fake_gpu(monkeypatch) as forms:
        there = OnGPU(llama, monkeypatch, forms)
        kinds = [EVERYTHING, SamplingParameters(top_n_tokens=3), *SAMPLED]
        for first, sampling in zip(range(0, 6 * len(kinds), 6), kinds, strict=True):
            for number in range(6):
                there.generate(first + number, 6 + number, sampling if number % 2 else None)
            there.finish()
            assert not there.compiled, sampling
            assert not there.waited, sampling
    there.check()


def test_grammars(llama, monkeypatch):
    guidance = byte_guidance(llama)
    guidance._masks._device = GPU
    with fake_gpu(monkeypatch) as forms:
        there = OnGPU(llama, monkeypatch, forms, guidance=guidance)
        for number in range(6):
            sampling = EVERYTHING if number % 3 == 1 else None
            grammar = regex("[a-z]+") if number % 2 else ""
            there.generate(number, 6 + number, sampling, grammar=grammar)
        there.driver.run()
    guidance.close()
    there.check()


@pytest.mark.parametrize("sizes", [SIZES, (3,), ()])
def test_sequences_come_back_and_longer_ones_come(sizes, llama, monkeypatch):
    """Preempted, or of a worker that was lost: prompts with what had been generated of them."""
    with fake_gpu(monkeypatch) as forms:
        there = OnGPU(llama, monkeypatch, forms, sizes=sizes)
        driver = there.driver
        for number in range(5):
            there.generate(number, 30, SAMPLED[number])
        while min(len(driver.records[number].ids) for number in range(5)) < 2:
            driver.step()
        for number in (3, 1):
            driver.release(number)
            driver.step()
        left = {number: driver.records[number].ids[:] for number in (1, 3)}
        for number, ids in left.items():
            driver.add(
                number, PROMPT * (1 + 3 * (number % 3)), 30, generated=ids, attempt=1,
                sampling=SAMPLED[number],
            )  # fmt: skip
            driver.step()
        driver.add(9, PROMPT * 20, 40, room=170)
        while len(driver.records[9].ids) < 10:
            driver.step()
        driver.grant(9, 32)
        driver.run()
    assert [len(record.ids) for record in driver.records.values()] == [30] * 5 + [40]
    there.check()


@pytest.mark.parametrize(("heads", "rows"), [(32, 20), (32, 5), (2, 4), (3, 9), (8, 5)])
def test_any_number_of_rows_and_heads(heads, rows, tmp_path, monkeypatch):
    """The keys of few are split: what has not been recorded has been compiled, in each division."""
    write_tiny_llama(
        tmp_path, num_attention_heads=heads, num_key_value_heads=heads, hidden_size=16 * heads,
        num_hidden_layers=1,
    )  # fmt: skip
    with fake_gpu(monkeypatch) as forms:
        there = OnGPU(tmp_path, monkeypatch, forms, sizes=(), rows=rows)
        for number in range(rows):
            there.driver.add(number, PROMPT, 1 + rows)
            there.driver.step()
        there.driver.run()
    there.check()


class Wrapper:
    """Of FlashInfer: lengths are the host's, which it plans on, everything else the device's."""

    def __init__(self, workspace, layout):
        assert workspace.device.type == "cuda"

    def plan(self, queries, pages, indices, last, *shape, **options):
        assert {tensor.device.type for tensor in (queries, pages, last)} == {"cpu"}
        assert (indices.device.type, indices.dtype) == ("cuda", torch.int32)

    def run(self, queries, cache, **scales):
        assert {tensor.device.type for tensor in (queries, *cache)} == {"cuda"}
        return torch.empty_like(queries)


@pytest.mark.parametrize(
    ("name", "kernel"),
    [
        pytest.param(
            "torch",
            VarlenAttention,
            marks=pytest.mark.skipif(
                "block_table" not in inspect.signature(varlen_attn).parameters,
                reason="this torch attends over no pages",
            ),
        ),
        ("flashinfer", FlashInferAttention),
    ],
)
def test_attention_of_others(name, kernel, tmp_path, monkeypatch):
    package = SimpleNamespace(__spec__=object(), BatchPrefillWithPagedKVCacheWrapper=Wrapper)
    monkeypatch.setitem(sys.modules, "flashinfer", package)
    write_tiny_llama(tmp_path, num_hidden_layers=1, head_dim=64)
    with fake_gpu(monkeypatch) as forms:
        there = OnGPU(tmp_path, monkeypatch, forms, choices=Choices(attention=name))
        there.several()
    assert isinstance(there.driver.engine._model.decoder._attention.kernel, kernel)
    there.check()
