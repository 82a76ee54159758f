"""What attention kernels have in common, and which of them run on GPUs: a registry by name.

Runs in the worker, once, at load. A package is imported where its kernel is chosen. Whatever a
kernel does not fit (a head that is too wide, a cap that it does not know) goes to the reference.
"""

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch

from common.errors import StartupError
from worker.inputs import StepInputs
from worker.kernels.reference.attention import (
    UNSCALED,
    Angles,
    AttentionShape,
    KVScales,
)
from worker.kernels.reference.norm import HeadNorms


class AttentionKernel(Protocol):
    """Attention of one shape; the reference documents both methods."""

    @property
    def capturable(self) -> bool:
        """Whether plan and attention of decoding sequences can be captured in a CUDA graph.

        They then read lengths and block tables from the device alone.
        """

    def plans(
        self, inputs: StepInputs, blocks: int, windows: tuple[int | None, ...] = ...
    ) -> Sequence[Any]:
        """What a step reads and writes, for each of the windows."""

    def attend(
        self,
        qkv: torch.Tensor,
        cache: torch.Tensor,
        step: Any,
        angles: Angles | None = None,
        norms: HeadNorms | None = None,
        scales: KVScales = UNSCALED,
    ) -> torch.Tensor:
        """Store, then attend."""


_E4M3_SINCE = (8, 9)

AttentionMaker = Callable[[AttentionShape], AttentionKernel]
SinkAttentionMaker = Callable[[AttentionShape, torch.Tensor], AttentionKernel]
"""Of one layer, whose heads have sinks [heads]: see ``reference/sinks.py``."""
FittingMaker = Callable[[AttentionShape], AttentionKernel | None]
"""None for a shape that the kernel does not fit."""


def choose_gpu_attention(
    name: str, device: torch.device, dtype: torch.dtype, kv_dtype: torch.dtype
) -> FittingMaker:
    """The kernel with this name (``--attention-kernel``), for a model of ``dtype``.

    Raises StartupError with a sentence if what it needs is not there.
    """
    return GPU_ATTENTION["triton" if name == "auto" else name](device, dtype, kv_dtype)


def has_triton() -> bool:
    """Whether Triton is installed, without importing it."""
    return importlib.util.find_spec("triton") is not None


def _triton(device: torch.device, dtype: torch.dtype, kv_dtype: torch.dtype) -> FittingMaker:
    from worker.kernels.triton.attention import TritonAttention

    if kv_dtype == torch.float8_e4m3fn and device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        if capability < _E4M3_SINCE:
            raise StartupError(
                "this GPU does not know fp8_e4m3, which came with compute capability 8.9: use"
                " --kv-cache-dtype fp8_e5m2"
            )

    def make(shape: AttentionShape) -> AttentionKernel | None:
        if not TritonAttention.fits(shape, dtype):
            return None
        return TritonAttention(shape, device=device, dtype=dtype)

    return make


def _torch(device: torch.device, dtype: torch.dtype, kv_dtype: torch.dtype) -> FittingMaker:
    from worker.kernels.varlen import VarlenAttention, refusal

    if kv_dtype != dtype:
        raise StartupError(
            "torch's paged attention reads no cache of 8 bits: use --attention-kernel triton, or"
            " leave out --kv-cache-dtype"
        )
    sentence = refusal(device, dtype)
    if sentence:
        raise StartupError(f"{sentence}: use --attention-kernel triton")

    def make(shape: AttentionShape) -> AttentionKernel | None:
        if not VarlenAttention.fits(shape):
            return None
        return VarlenAttention(shape, device=device, dtype=dtype)

    return make


def _flashinfer(device: torch.device, dtype: torch.dtype, kv_dtype: torch.dtype) -> FittingMaker:
    if importlib.util.find_spec("flashinfer") is None:
        raise StartupError(
            "FlashInfer is not installed: pip install flashinfer-python, or use"
            " --attention-kernel triton"
        )
    if dtype == torch.float32:
        raise StartupError(
            "FlashInfer computes in 16 bits: use --attention-kernel triton, or another --dtype"
        )
    import flashinfer

    from worker.kernels.flashinfer import FlashInferAttention

    def make(shape: AttentionShape) -> AttentionKernel | None:
        if not FlashInferAttention.fits(shape):
            return None
        return FlashInferAttention(flashinfer, shape, device=device, dtype=dtype, kv_dtype=kv_dtype)

    return make


GPU_ATTENTION: dict[str, Callable[[torch.device, torch.dtype, torch.dtype], FittingMaker]] = {
    "triton": _triton,
    "torch": _torch,
    "flashinfer": _flashinfer,
}
"""By the names of ``--attention-kernel``: for a device, the model's dtype and the cache's."""
