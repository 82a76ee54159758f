"""On the emulated device: codes of quantized weights, and adapters, in the company of none."""

from functools import partial

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.gpu.engines import PROMPTS, ahead, forbid_waiting, generated, make_engine
from tests.worker.adapters import write_adapter
from tests.worker.models.families import FAMILIES
from tests.worker.quantization import writers
from tests.worker.quantization.writers import quantized
from tests.worker.tiny import write_tiny, write_tiny_llama
from worker.ahead.decode import DecodeStep
from worker.layers.linear import matrices
from worker.loading import load_model
from worker.runner import HostRunner

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
FEW = partial(generated, prompts=PROMPTS[:3], count=4)

GRAPHS = ahead((1, 2, 4))
FORMATS = {
    "gptq": writers.gptq(group=16, symmetric=False),
    "fp8": writers.fp8("block", (48, 64)),
    "nf4": writers.nf4(),
    "int8": writers.scb(),
}


@pytest.mark.parametrize("name", FORMATS)
def test_codes_say_what_they_say_on_the_cpu(name, tmp_path):
    write_tiny_llama(tmp_path / "source", seed=3)
    coded, _ = quantized(tmp_path / "source", tmp_path, *FORMATS[name])
    load = partial(load_model, str(coded), dtype=torch.float32)
    there = load(device=CUDA)
    assert any(layer.is_coded for layer in matrices(there))
    expected = FEW(make_engine(load(device=CPU), HostRunner))
    assert FEW(make_engine(there, GRAPHS)) == expected


@pytest.mark.parametrize("quantize", ["eetq", "bitsandbytes-nf4"])
def test_codes_of_experts_say_what_they_say_on_the_cpu(quantize, tmp_path):
    write_tiny(tmp_path, FAMILIES["mixtral"](), seed=2)
    load = partial(load_model, str(tmp_path), dtype=torch.float32, quantize=quantize)
    there = load(device=CUDA)
    assert there.capturable
    expected = FEW(make_engine(load(device=CPU), HostRunner))
    assert FEW(make_engine(there, GRAPHS)) == expected


def test_codes_that_no_kernel_takes_are_told_of(tmp_path):
    """Of experts of a width that only 8 divides: one by one, which waits for the host."""
    config = FAMILIES["mixtral"]()
    config.intermediate_size = 40
    write_tiny(tmp_path, config, seed=2)
    load = partial(load_model, str(tmp_path), dtype=torch.float32, quantize="eetq")
    there = load(device=CUDA)
    assert not there.capturable
    assert "codes as its experts have them" in there.why_not_recorded
    expected = FEW(make_engine(load(device=CPU), HostRunner))
    assert FEW(make_engine(there, ahead())) == expected


def test_mxfp4_says_what_it_says_on_the_cpu(tmp_path):
    """As gpt-oss is published: codes of experts that have biases, and sinks."""
    write_tiny(tmp_path, FAMILIES["gpt_oss"](), seed=2)
    coded, _ = writers.mxfp4(load_file(tmp_path / writers.WEIGHTS))
    save_file(coded, tmp_path / writers.WEIGHTS)
    writers.change_config(tmp_path, quantization_config={"quant_method": "mxfp4"})
    load = partial(load_model, str(tmp_path), dtype=torch.float32)
    there = load(device=CUDA)
    assert there.capturable
    expected = FEW(make_engine(load(device=CPU), HostRunner))
    assert FEW(make_engine(there, GRAPHS)) == expected


def test_adapters_say_what_they_say_on_the_cpu(tmp_path, monkeypatch):
    """Two of them beside none, wherever all decode from graphs, which nobody waits for."""
    write_tiny_llama(tmp_path / "base", seed=3)
    adapters = [
        write_adapter(tmp_path / f"rank-{rank}", tmp_path / "base", rank=rank, seed=rank)
        for rank in (4, 40)
    ]
    digests = tuple(adapter.digest for adapter in adapters)
    load = partial(load_model, str(tmp_path / "base"), dtype=torch.float32, adapters=adapters)
    on_cpu = make_engine(load(device=CPU), HostRunner, adapters=digests)
    there = make_engine(load(device=CUDA), GRAPHS, adapters=digests)
    replayed = replays(there)
    say = partial(FEW, count=5, adapters=(digests[1], "", digests[0]))
    expected = say(on_cpu)
    assert say(there) == expected
    forbid_waiting(there, monkeypatch)
    monkeypatch.setattr(DecodeStep, "_forward", None)
    assert say(there) == expected
    assert replayed == [(size, True) for size in (1, 4, 2, 2, 1)] * 2
    plain = say(on_cpu, adapters=("",))
    assert say(there, adapters=("",)) == plain
    assert replayed[10:] == [(size, False) for size in (1, 4, 2, 2, 1)]
    assert [plain[row] == expected[row] for row in range(3)] == [False, True, False]


def replays(engine) -> list[tuple[int, bool]]:
    """Which graphs are launched from now on: their sizes, and whether with adapters."""
    found: list[tuple[int, bool]] = []
    recorded = engine._runner._steps._decode._recorded

    def noted(kind, program, lengths):
        found.append(kind)
        return program(lengths)

    for kind, program in recorded.items():
        recorded[kind] = partial(noted, kind, program)
    return found
