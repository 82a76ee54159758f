"""Models that run through transformers on a fake GPU: a step at a time, over our kernels."""

from dataclasses import replace

import pytest
import torch

from tests.worker import driver
from tests.worker.ahead.fake_gpu import GPU, FakeTransfers, fake_gpu
from tests.worker.driver import Driver
from tests.worker.through_transformers.compare import placed
from worker.kernels.select import Choices, select, select_sampling
from worker.models.through_transformers.paged import PagedModel, make_paged
from worker.sampler import Choice, Sampled

BLOCKS = 64
TOKENS = 5


def moved(here: PagedModel) -> PagedModel:
    """The model there, in bfloat16, as it has been found to run here, with real numbers."""
    model = here._adapter.model
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                there = torch.empty(parameter.shape, dtype=torch.bfloat16, device=GPU)
                module._parameters[name] = torch.nn.Parameter(there, requires_grad=False)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device=GPU)
    configuration = replace(here.configuration, dtype=torch.bfloat16)
    kernels = select(GPU, torch.bfloat16)
    return make_paged(model, here._adapter, here._paging._calls, kernels, configuration)


def chosen(choice: Choice) -> Sampled:
    """Read without numbers."""
    assert {choice.ids.device.type, choice.logprobs.device.type} == {"cuda"}
    count = len(choice.ids)
    return Sampled([1] * count, [-1.0] * count, [[] for _ in range(count)])


@pytest.mark.parametrize("model_type", ["cohere2", "deepseek_v3"])
def test_a_class_over_our_kernels(model_type, monkeypatch):
    """Windows by layer; keys wider than values, and experts."""
    here, _, _ = placed(model_type)
    assert isinstance(here, PagedModel)
    monkeypatch.setattr("worker.engine.transfers_of", lambda device: FakeTransfers())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(Choice, "read", chosen)
    with fake_gpu(monkeypatch) as forms, torch.inference_mode():
        model = moved(here)
        options = {"device": GPU, "sampling": select_sampling(GPU, choices=Choices())}
        monkeypatch.setitem(driver.RUNNERS, "gpu", options)
        cache = model.make_cache(model.configuration, BLOCKS, GPU)
        driven = Driver(model, cache, blocks=BLOCKS, runner="gpu", step_tokens=24)
        for number in range(4):
            driven.add(number, [5, 6, 7] * (1 + 4 * number), TOKENS)
            driven.step()
        driven.run()
    assert [(record.error, len(record.ids)) for record in driven.records.values()] == [
        ("", TOKENS)
    ] * 4
    assert {"_store", "_attend", "_race"} <= {form[0] for form in forms}
