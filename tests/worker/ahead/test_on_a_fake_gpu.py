"""A step's Python as a GPU runs it: everything is on the device, and nobody waits for it."""

from functools import partial

import pytest
import torch

from common.sampling import SamplingParameters
from tests.worker.ahead.fake_gpu import GPU, Copies, FakeTransfers, fake_gpu
from tests.worker.ahead.waiting import Counting
from tests.worker.driver import RUNNERS, Driver
from tests.worker.models.families import FAMILIES
from tests.worker.test_exactness import SAMPLED
from tests.worker.tiny import write_tiny, write_tiny_llama
from worker.ahead.runner import AheadRunner
from worker.engine import Engine
from worker.inputs import StepInputs
from worker.kernels.select import Choices, select_gather, select_sampling
from worker.loading import load_model
from worker.warmup import Worst, warm_up

PROMPT = [3, 1, 4, 1, 5, 9, 2, 6]
SIZES = (1, 2, 4)
MIXTURES = {"mixtral", "qwen3_moe", "qwen3_moe_normalized"}
"""They ask the device how many tokens each expert has."""


@pytest.fixture(params=[True, False], ids=["in Triton", "in torch"])
def choices(request):
    """Of what samples, and gathers the inputs: attention in torch alone plans on the host."""
    return Choices(custom=request.param)


def driver_of(directory, choices, monkeypatch, sizes=SIZES):
    """An engine over what the directory has, and the counts of what its launches wait for."""
    model = load_model(str(directory), device=GPU, dtype=torch.bfloat16)
    transfers = FakeTransfers()
    monkeypatch.setattr("worker.engine.transfers_of", lambda device: transfers)
    gather = select_gather(GPU, choices)
    make = partial(AheadRunner, sequences=40, longest=200, sizes=sizes, gather=gather)
    sampling = select_sampling(GPU, choices=choices)
    runner = {"device": GPU, "make_runner": make, "sampling": sampling}
    monkeypatch.setitem(RUNNERS, "gpu", runner)
    driver = Driver(model, model.make_cache(model.configuration, 64, GPU), runner="gpu")
    assert model.capturable
    assert transfers.recorded == [(200,) * size for size in sorted(sizes, reverse=True)]
    counting, copies = Counting(), Copies()
    launch = driver.engine._runner.launch

    def watched(flight, masks):
        with counting, copies:
            return launch(flight, masks)

    monkeypatch.setattr(driver.engine._runner, "launch", watched)
    return driver, (counting, copies)


def generates(driver, sampling):
    """Prompts whole and in pieces, scored and not, beside what decodes, alone and padded."""
    driver.step_tokens = 24
    for number in range(3):
        prompt = PROMPT * (1 + 3 * number)
        driver.add(number, prompt, 6, sampling=sampling, prefill_logprobs=number == 1)
        assert driver.step()
    driver.run()
    for record in driver.records.values():
        assert (record.ids, record.finish, record.error) == ([0] * 6, "length", "")


@pytest.mark.parametrize("sampling", [SamplingParameters(), *SAMPLED])
def test_no_sampling_waits(sampling, choices, tmp_path, monkeypatch):
    write_tiny_llama(tmp_path)
    with fake_gpu(monkeypatch):
        driver, waited = driver_of(tmp_path, choices, monkeypatch)
        generates(driver, sampling)
    assert [counts.found for counts in waited] == [{}, {}]


@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - MIXTURES))
def test_no_family_waits(family, tmp_path, monkeypatch):
    write_tiny(tmp_path, FAMILIES[family]())
    with fake_gpu(monkeypatch):
        driver, waited = driver_of(tmp_path, Choices(), monkeypatch)
        generates(driver, SamplingParameters())
    assert [counts.found for counts in waited] == [{}, {}]


@pytest.mark.parametrize("sizes", [SIZES, ()], ids=["recorded", "not recorded"])
def test_nothing_is_compiled_and_nothing_recorded_is_lost_once_the_worker_is_ready(
    sizes, tmp_path, monkeypatch
):
    write_tiny_llama(tmp_path)
    prepare = Engine.prepare

    def warmed(engine):
        warm_up(engine, Worst(tokens=64, rows=40, longest_tokens=200))
        prepare(engine)

    monkeypatch.setattr(Engine, "prepare", warmed)
    with fake_gpu(monkeypatch) as forms:
        driver, _ = driver_of(tmp_path, Choices(), monkeypatch, sizes)
        ready = set(forms)
        for number, sampling in enumerate([SamplingParameters(), *SAMPLED]):
            driver.add(number, PROMPT * 2, 5 + number, sampling=sampling)
            driver.step()
        driver.run()
    assert forms == ready
    assert bool(driver.engine._runner._steps._decode._recorded) == bool(sizes)


def test_a_tensor_left_on_the_host_is_seen(tmp_path, monkeypatch):
    write_tiny_llama(tmp_path)

    def misplaced(**tensors):
        return StepInputs(**tensors | {"logit_rows": torch.zeros(4, dtype=torch.int64)})

    monkeypatch.setattr("worker.ahead.decode.StepInputs", misplaced)
    with fake_gpu(monkeypatch), pytest.raises(RuntimeError, match="device"):
        driver_of(tmp_path, Choices(), monkeypatch)


def test_a_kernel_given_what_lies_on_the_host_is_seen(tmp_path, monkeypatch):
    write_tiny_llama(tmp_path)
    monkeypatch.setattr("worker.kernels.triton.attention.send", lambda tensor, device: tensor)
    with fake_gpu(monkeypatch):
        driver, _ = driver_of(tmp_path, Choices(), monkeypatch)
        driver.add(0, PROMPT, 2)
        driver.step()
    assert driver.records[0].error == "the forward pass failed (AssertionError)"


def test_a_copy_that_is_waited_for_is_seen(tmp_path, monkeypatch):
    write_tiny_llama(tmp_path)
    monkeypatch.setattr("worker.kernels.triton.attention.send", torch.Tensor.to)
    with fake_gpu(monkeypatch):
        driver, (_, copies) = driver_of(tmp_path, Choices(), monkeypatch)
        driver.add(0, PROMPT, 2)
        driver.run()
    assert copies.found == {"to from cpu": 1}
