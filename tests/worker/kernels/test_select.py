"""What GPUs run on, chosen without one: by what is installed, and by the settings."""

import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from common.errors import StartupError
from tests.worker.kernels.attending import Attending
from worker.kernels import attention, flashinfer, select
from worker.kernels.reference import gather as reference_gather
from worker.kernels.reference.attention import AttentionShape, PagedAttention
from worker.kernels.sampling import SEEING, UNSEEN, SamplingKernels
from worker.kernels.select import Choices
from worker.kernels.triton import draw as triton_draw
from worker.kernels.triton import filters as triton_filters
from worker.kernels.triton import gather as triton_gather
from worker.kernels.triton import linear as triton_linear
from worker.kernels.triton import penalties as triton_penalties
from worker.kernels.triton.attention import TritonAttention
from worker.kernels.triton.norm import TritonNorm
from worker.kernels.varlen import VarlenAttention, refusal

CPU = torch.device("cpu")
SHAPE = AttentionShape(4, 2, 64, 0.2)


@pytest.fixture
def chosen(monkeypatch):
    """What is chosen for a CUDA device, with tensors elsewhere: ``select`` is told that it is."""

    def choose(**choices):
        device = SimpleNamespace(type="cuda")
        kernels = select.reference(CPU, torch.bfloat16)
        monkeypatch.setattr(select, "reference", lambda *arguments: kernels)
        return select.select(device, torch.bfloat16, choices=Choices(**choices))

    return choose


def test_triton_where_it_is_installed(chosen):
    kernels = chosen()
    assert isinstance(kernels.attention(SHAPE), TritonAttention)
    assert isinstance(kernels.prepare_norm(torch.ones(8), 1e-5), TritonNorm)


def test_the_gated_activation_is_tritons(chosen, monkeypatch):
    monkeypatch.setattr(triton_linear, "silu_and_multiply", lambda both: both[:, :1] + 5)
    x, weight = torch.ones(2, 4), torch.zeros(6, 4)
    kernels = chosen()
    assert torch.equal(kernels.pack_gated["silu"](weight, None)(x), torch.full((2, 1), 5.0))
    assert torch.equal(kernels.pack_gated["gelu"](weight, None)(x), torch.zeros(2, 3))


def test_the_reference_for_what_does_not_fit(chosen):
    assert isinstance(chosen().attention(replace(SHAPE, head_dim=512)), PagedAttention)


def test_the_reference_where_kernels_are_not_wanted(chosen):
    kernels = chosen(custom=False)
    assert isinstance(kernels.attention(SHAPE), PagedAttention)
    assert not isinstance(kernels.prepare_norm(torch.ones(8), 1e-5), TritonNorm)


def test_without_triton(chosen, monkeypatch, caplog):
    monkeypatch.setattr(select, "has_triton", lambda: False)
    assert isinstance(chosen().attention(SHAPE), PagedAttention)
    assert "Triton is not installed" in caplog.text
    with pytest.raises(StartupError, match="needs Triton: pip install triton"):
        chosen(attention="flashinfer")


def test_nothing_of_triton_for_cpus():
    kernels = select.select(CPU, torch.float32)
    assert isinstance(kernels.attention(SHAPE), PagedAttention)


def test_torch_refuses_with_a_sentence_where_it_cannot(chosen):
    with pytest.raises(StartupError, match=r"does not take blocks of 16 tokens .*kernel triton"):
        chosen(attention="torch")
    with pytest.raises(StartupError, match="no cache of 8 bits"):
        chosen(attention="torch", kv_dtype=torch.float8_e5m2)
    assert refusal(CPU, torch.bfloat16)


def test_torchs_plan():
    step = Attending([30, 20], [1, 9], 1)
    plans = VarlenAttention(SHAPE, device=CPU, dtype=torch.bfloat16).plans(
        step.inputs, step.blocks, (None, 5)
    )
    assert [plan.window for plan in plans] == [(-1, 0), (4, 0)]
    assert plans[0].starts.tolist() == [0, 1, 10]
    assert plans[0].tables.dtype == plans[0].lengths.dtype == torch.int32
    assert (plans[0].most_queries, plans[0].most_keys) == (9, 31)
    assert not VarlenAttention.fits(replace(SHAPE, cap=3.0))


def test_flashinfer_is_asked_for_where_it_is_not(chosen):
    with pytest.raises(StartupError, match="pip install flashinfer-python"):
        chosen(attention="flashinfer")


class Wrapper:
    """Of FlashInfer's: keeps what it is planned with."""

    def __init__(self, workspace, layout):
        self.layout = layout

    def plan(self, *arguments, **options):
        self.planned = [
            value.tolist() if isinstance(value, torch.Tensor) else value for value in arguments
        ]
        self.options = options


def test_flashinfers_plan(monkeypatch):
    monkeypatch.setattr(flashinfer, "_WORKSPACE_BYTES", 16)
    package = SimpleNamespace(BatchPrefillWithPagedKVCacheWrapper=Wrapper)
    step = Attending([30, 20], [1, 12], 1)
    kernel = flashinfer.FlashInferAttention(
        package, SHAPE, device=CPU, dtype=torch.bfloat16, kv_dtype=torch.float8_e4m3fn
    )
    whole, windowed, same = kernel.plans(step.inputs, step.blocks, (None, 5, None))
    assert whole is same
    blocks = [*step.tables[0, :2].tolist(), *step.tables[1, :2].tolist()]
    planned = whole.wrapper.planned
    assert planned == [[0, 1, 13], [0, 2, 4], blocks, [15, 16], 4, 2, 64, 16]
    assert whole.wrapper.layout == "HND"
    assert whole.wrapper.options["causal"]
    assert whole.wrapper.options["kv_data_type"] == torch.float8_e4m3fn
    assert [plan.wrapper.options["window_left"] for plan in (whole, windowed)] == [-1, 4]
    # The device may still be reading what the step before was planned with.
    following, kept = [kernel.plans(step.inputs, step.blocks)[0].wrapper for _ in range(2)]
    assert following is not whole.wrapper
    assert kept is whole.wrapper


def test_flashinfer_is_used_where_it_is(chosen, monkeypatch):
    monkeypatch.setitem(sys.modules, "flashinfer", SimpleNamespace(__spec__=object()))
    monkeypatch.setattr(flashinfer, "_WORKSPACE_BYTES", 16)
    kernels = chosen(attention="flashinfer")
    assert isinstance(kernels.attention(SHAPE), flashinfer.FlashInferAttention)
    assert isinstance(kernels.attention(replace(SHAPE, head_dim=80)), PagedAttention)


def test_every_name_of_the_setting_is_known():
    assert set(attention.GPU_ATTENTION) == {"triton", "torch", "flashinfer"}


def test_what_the_sampler_runs_on(monkeypatch):
    device = SimpleNamespace(type="cuda")
    ours = SamplingKernels(
        triton_draw.draw, triton_filters.top_k, triton_filters.top_p, triton_penalties.penalize_
    )
    assert select.select_sampling(device) == ours
    assert select.select_sampling(CPU) is SEEING
    assert select.select_sampling(device, None, Choices(custom=False)) is UNSEEN
    monkeypatch.setattr(select, "has_triton", lambda: False)
    assert select.select_sampling(device) is UNSEEN


def test_the_gathering_of_inputs():
    device = SimpleNamespace(type="cuda")
    assert select.select_gather(CPU) is reference_gather.gather_inputs
    assert select.select_gather(device) is triton_gather.gather_inputs
    assert select.select_gather(device, Choices(custom=False)) is reference_gather.gather_inputs


def test_older_gpus_know_one_kind_of_8_bits(monkeypatch):
    def choose(kv_dtype):
        return attention.choose_gpu_attention("auto", device, torch.bfloat16, kv_dtype)

    device = SimpleNamespace(type="cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 6))
    with pytest.raises(StartupError, match=r"8\.9: use --kv-cache-dtype fp8_e5m2"):
        choose(torch.float8_e4m3fn)
    assert choose(torch.float8_e5m2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert choose(torch.float8_e4m3fn)
