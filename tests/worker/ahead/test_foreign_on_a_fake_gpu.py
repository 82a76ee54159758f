"""Models that run through transformers on a fake GPU: ahead, from graphs, over our kernels."""

from dataclasses import replace

import pytest
import torch

from tests.worker.ahead import on_fake_gpu
from tests.worker.ahead.fake_gpu import GPU, fake_gpu
from tests.worker.ahead.on_fake_gpu import OnGPU
from tests.worker.through_transformers.compare import placed
from worker.kernels.select import select
from worker.models.through_transformers.paged import PagedModel, make_paged


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
    there = make_paged(model, here._adapter, here._paging._calls, kernels, configuration)
    assert there.attention_capturable
    return there


@pytest.mark.parametrize("model_type", ["cohere2", "deepseek_v3"])
def test_a_class_over_our_kernels(model_type, monkeypatch):
    """Windows by layer; keys wider than values, and experts."""
    here, _, _ = placed(model_type)
    assert isinstance(here, PagedModel)
    monkeypatch.setattr(on_fake_gpu, "load_model", lambda *given, **options: moved(here))
    with fake_gpu(monkeypatch) as forms, torch.inference_mode():
        there = OnGPU("", monkeypatch, forms)
        there.several(4)
    there.check()
    assert there.recorded
    assert {"_store", "_attend", "_race"} <= {form[0] for form in forms}
