"""Which device a worker computes on, and in which dtype."""

import torch

from common.errors import StartupError
from common.settings import Settings

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
"""By their names in settings and in config.json."""

KV_DTYPES = {
    "bfloat16": torch.bfloat16,
    "fp8_e4m3": torch.float8_e4m3fn,
    "fp8_e4m3fn": torch.float8_e4m3fn,
    "fp8_e5m2": torch.float8_e5m2,
}
"""Of cached keys and values, by their names in settings; ``auto`` is the model's dtype."""

_BFLOAT16_FEATURES = ("avx512_bf16", "amx_bf16", "sve_bf16", "bf16")
_FLOAT16_FEATURES = ("avx512_fp16", "amx_fp16")


def choose(settings: Settings) -> tuple[torch.device, torch.dtype | None]:
    """The device, and the dtype where it was asked for; None leaves it to the checkpoint.

    Raises StartupError for names that are not known and a device that is not there.
    """
    dtype = None
    if settings.dtype != "auto":
        if settings.dtype not in DTYPES:
            raise StartupError(f"dtype {settings.dtype!r} is not one of auto, {', '.join(DTYPES)}")
        dtype = DTYPES[settings.dtype]
    cuda = torch.cuda.is_available()
    if settings.device == "auto":
        return torch.device("cuda" if cuda else "cpu"), dtype
    if settings.device not in ("cpu", "cuda"):
        raise StartupError(f"device {settings.device!r} is not one of auto, cpu, cuda")
    if settings.device == "cuda" and not cuda:
        raise StartupError("device cuda was asked for, but torch finds no usable GPU")
    return torch.device(settings.device), dtype


def idle_build(settings: Settings, device: torch.device) -> str:
    """What to say where torch was built for GPUs and computes on the CPU unasked; else empty."""
    if device.type != "cpu" or settings.device != "auto" or not torch.version.cuda:
        return ""
    return (
        f"torch is built for CUDA {torch.version.cuda}, but finds no usable GPU: computing on the"
        " CPU. A container needs --gpus all; --device cuda would refuse to start like this"
    )


def choose_kv_dtype(name: str) -> torch.dtype | None:
    """What keys and values are cached in; None for the model's dtype. Raises StartupError."""
    if name == "auto":
        return None
    if name not in KV_DTYPES:
        raise StartupError(f"kv_cache_dtype {name!r} is not one of auto, {', '.join(KV_DTYPES)}")
    return KV_DTYPES[name]


def check_kv_dtype(kv_dtype: torch.dtype | None, dtype: torch.dtype, device: torch.device) -> None:
    """Raise StartupError unless a model of ``dtype`` can cache keys and values in ``kv_dtype``."""
    if kv_dtype is None or kv_dtype == dtype or kv_dtype.itemsize == 1:
        return
    if not (kv_dtype == torch.bfloat16 and dtype == torch.float32 and device.type == "cpu"):
        names = [str(kind).removeprefix("torch.") for kind in (kv_dtype, dtype)]
        raise StartupError(
            "--kv-cache-dtype {} is for models computed in bfloat16, and on a CPU for those in"
            " float32; this one is computed in {}: leave it out, or use fp8_e5m2".format(*names)
        )


def resolve_dtype(
    asked: torch.dtype | None, checkpoint: torch.dtype, device: torch.device
) -> torch.dtype:
    """The dtype to compute in: what was asked for, else the checkpoint's where it is native."""
    if asked is not None:
        return asked
    if checkpoint not in DTYPES.values():
        return torch.float32
    if device.type == "cpu" and not computes_natively(checkpoint):
        return torch.float32
    return checkpoint


def computes_natively(dtype: torch.dtype) -> bool:
    """Has this CPU instructions that multiply this dtype? Others are emulated, slowly."""
    if dtype == torch.float32:
        return True
    features = _BFLOAT16_FEATURES if dtype == torch.bfloat16 else _FLOAT16_FEATURES
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in features)
