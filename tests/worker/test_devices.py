"""Device and dtype, chosen."""

import pytest
import torch

from common.errors import StartupError
from common.settings import Settings
from worker import devices

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def settings(**values):
    return Settings(model_id="m", model_dir="/m", **values)


@pytest.fixture
def cuda(monkeypatch):
    def pretend(available):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: available)

    return pretend


def test_auto_takes_the_gpu_if_there_is_one(cuda):
    cuda(True)
    assert devices.choose(settings()) == (CUDA, None)
    cuda(False)
    assert devices.choose(settings()) == (CPU, None)
    assert devices.choose(settings(dtype="bfloat16")) == (CPU, torch.bfloat16)


@pytest.mark.parametrize(
    ("asked", "device", "build", "says"),
    [
        ("auto", CPU, "13.0", True),
        ("cpu", CPU, "13.0", False),
        ("auto", CUDA, "13.0", False),
        ("auto", CPU, None, False),
    ],
)
def test_a_build_for_gpus_without_one_is_told_of(monkeypatch, asked, device, build, says):
    monkeypatch.setattr(torch.version, "cuda", build)
    told = devices.idle_build(settings(device=asked), device)
    assert ("CUDA 13.0" in told and "--gpus all" in told) is says
    assert bool(told) is says


def test_what_is_asked_for(cuda):
    cuda(True)
    assert devices.choose(settings(device="cpu", dtype="float16")) == (CPU, torch.float16)
    cuda(False)
    with pytest.raises(StartupError, match="cuda"):
        devices.choose(settings(device="cuda"))
    with pytest.raises(StartupError, match="tpu"):
        devices.choose(settings(device="tpu"))
    with pytest.raises(StartupError, match="int8"):
        devices.choose(settings(dtype="int8"))


@pytest.mark.parametrize(
    ("features", "dtype", "wanted"),
    [
        ({"avx2": True}, torch.bfloat16, torch.float32),
        ({"avx512_bf16": True}, torch.bfloat16, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16, torch.bfloat16),
        ({"amx_bf16": True}, torch.float16, torch.float32),
        ({"avx512_fp16": True}, torch.float16, torch.float16),
        ({"avx2": True}, torch.float32, torch.float32),
        ({"avx2": True}, torch.float64, torch.float32),
    ],
)
def test_the_checkpoints_dtype_where_the_cpu_computes_it(monkeypatch, features, dtype, wanted):
    capabilities = {"architecture": "x86_64", **features}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert devices.resolve_dtype(None, dtype, CPU) == wanted
    assert devices.resolve_dtype(torch.float16, dtype, CPU) == torch.float16
    on_gpu = torch.float32 if dtype == torch.float64 else dtype
    assert devices.resolve_dtype(None, dtype, CUDA) == on_gpu


def test_the_type_of_cached_keys_and_values():
    assert devices.choose_kv_dtype("auto") is None
    assert devices.choose_kv_dtype("bfloat16") == torch.bfloat16
    assert devices.choose_kv_dtype("fp8_e4m3") == torch.float8_e4m3fn
    assert devices.choose_kv_dtype("fp8_e4m3fn") == torch.float8_e4m3fn
    assert devices.choose_kv_dtype("fp8_e5m2") == torch.float8_e5m2
    with pytest.raises(StartupError, match="kv_cache_dtype 'int4' is not one of auto, bfloat16"):
        devices.choose_kv_dtype("int4")


@pytest.mark.parametrize(
    ("kv_dtype", "dtype", "device"),
    [
        (None, torch.float32, CUDA),
        (torch.bfloat16, torch.bfloat16, CUDA),
        (torch.bfloat16, torch.bfloat16, CPU),
        (torch.bfloat16, torch.float32, CPU),
        (torch.float8_e5m2, torch.float16, CUDA),
    ],
)
def test_types_of_keys_and_values_that_go_with_a_model_s(kv_dtype, dtype, device):
    devices.check_kv_dtype(kv_dtype, dtype, device)


@pytest.mark.parametrize(("dtype", "device"), [(torch.float16, CPU), (torch.float32, CUDA)])
def test_keys_and_values_in_bfloat16_go_with_few(dtype, device):
    name = str(dtype).removeprefix("torch.")
    with pytest.raises(StartupError, match=f"computed in {name}: leave it out"):
        devices.check_kv_dtype(torch.bfloat16, dtype, device)
