"""A step's Python as a GPU runs it: everything is on the device, and nobody waits for it."""

from types import SimpleNamespace

import pytest
import torch

from common.sampling import SamplingParameters
from tests.worker.ahead.fake_gpu import fake_gpu
from tests.worker.ahead.on_fake_gpu import PROMPT, SIZES, OnGPU
from tests.worker.models.families import FAMILIES
from tests.worker.texts import SAMPLED
from tests.worker.tiny import write_tiny, write_tiny_llama
from worker.inputs import StepInputs
from worker.kernels.select import Choices
from worker.speculation.speculation import Speculation


@pytest.mark.parametrize("custom", [True, False], ids=["in Triton", "in torch"])
def test_no_sampling_waits(custom, tmp_path, monkeypatch):
    """Of torch alone what samples, and gathers the inputs: its attention plans on the host."""
    write_tiny_llama(tmp_path, num_hidden_layers=1)
    with fake_gpu(monkeypatch) as forms:
        there = OnGPU(tmp_path, monkeypatch, forms, warm=False, beside=Choices(custom=custom))
        for kind, sampling in enumerate([SamplingParameters(), *SAMPLED]):
            there.generate(2 * kind, 5, sampling, prefill_logprobs=True)
            there.generate(2 * kind + 1, 6, sampling)
            there.finish()
            assert not there.waited, sampling
    there.check()


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_no_family_waits(family, tmp_path, monkeypatch):
    write_tiny(tmp_path, FAMILIES[family]())
    with fake_gpu(monkeypatch) as forms:
        there = OnGPU(tmp_path, monkeypatch, forms, warm=False)
        there.several(3)
    assert there.recorded
    there.check()


@pytest.mark.parametrize("family", ["mistral", "mixtral"])
@pytest.mark.parametrize("sizes", [SIZES, ()], ids=["recorded", "not recorded"])
def test_nothing_is_compiled_and_nothing_recorded_is_lost_once_the_worker_is_ready(
    sizes, family, tmp_path, monkeypatch
):
    write_tiny(tmp_path, FAMILIES[family]())
    with fake_gpu(monkeypatch) as forms:
        there = OnGPU(tmp_path, monkeypatch, forms, sizes=sizes)
        for number, sampling in enumerate([SamplingParameters(), *SAMPLED]):
            there.driver.add(number, PROMPT * 2, 5 + number, sampling=sampling)
            there.driver.step()
        there.driver.run()
    there.check()


def test_drafts_are_rows_of_what_was_recorded_and_compile_nothing(tmp_path, monkeypatch):
    write_tiny_llama(tmp_path, num_hidden_layers=1)
    guesses = SimpleNamespace(propose=lambda most: [1, 2, 3][:most])
    with fake_gpu(monkeypatch) as forms:
        there = OnGPU(
            tmp_path, monkeypatch, forms, speculation=Speculation(3, lambda *given: guesses)
        )
        for number, sampling in enumerate([SamplingParameters(), *SAMPLED]):
            there.driver.add(number, PROMPT * 2, 8 + number, sampling=sampling)
            there.driver.step()
        there.driver.run()
        assert there.driver.drafted > 10
        assert (4, False) in there.replayed
    there.check()


def test_a_tensor_left_on_the_host_is_seen(tmp_path, monkeypatch):
    write_tiny_llama(tmp_path)

    def misplaced(**tensors):
        return StepInputs(**tensors | {"logit_rows": torch.zeros(4, dtype=torch.int64)})

    monkeypatch.setattr("worker.ahead.decode.StepInputs", misplaced)
    with fake_gpu(monkeypatch), pytest.raises(RuntimeError, match="device"):
        OnGPU(tmp_path, monkeypatch, set(), warm=False)


def test_a_kernel_given_what_lies_on_the_host_is_seen(tmp_path, monkeypatch):
    write_tiny_llama(tmp_path)
    monkeypatch.setattr("worker.kernels.triton.attention.send", lambda tensor, device: tensor)
    with fake_gpu(monkeypatch) as forms:
        driver = OnGPU(tmp_path, monkeypatch, forms, warm=False).driver
        driver.add(0, PROMPT, 2)
        driver.step()
    assert driver.records[0].error == "the forward pass failed (AssertionError)"


def test_a_copy_that_is_waited_for_is_seen(tmp_path, monkeypatch):
    write_tiny_llama(tmp_path)
    monkeypatch.setattr("worker.kernels.triton.attention.send", torch.Tensor.to)
    with fake_gpu(monkeypatch) as forms:
        there = OnGPU(tmp_path, monkeypatch, forms, warm=False)
        there.driver.add(0, PROMPT, 2)
        there.driver.run()
    assert there.waited == {"to from cpu": 1}
