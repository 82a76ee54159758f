"""Chooses, once at load, which implementation of every operation a model runs on.

The result is handed to every layer: no layer asks where it runs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import torch

from worker.inputs import StepInputs
from worker.kernels.cpu import linear as cpu_linear
from worker.kernels.cpu import norm as cpu_norm
from worker.kernels.cpu import pointwise
from worker.kernels.cpu.attention import ELEMENTS, NativeAttention
from worker.kernels.cpu.layers import fuse_layers
from worker.kernels.cpu.library import Library
from worker.kernels.reference import linear, norm, sampling
from worker.kernels.reference.activation import ACTIVATIONS, GATED_ACTIVATIONS, Activation
from worker.kernels.reference.attention import Angles, AttentionShape, PagedAttention
from worker.kernels.reference.linear import LinearOperation
from worker.kernels.reference.norm import NormOperations
from worker.kernels.reference.sampling import Summary
from worker.kernels.stack import LayerParts, StackOperation, keep_layers


class AttentionKernel(Protocol):
    """Attention of one shape; the reference documents both methods."""

    def plans(
        self, inputs: StepInputs, blocks: int, windows: tuple[int | None, ...] = ...
    ) -> Sequence[Any]:
        """What a step reads and writes, for each of the windows."""

    def attend(
        self, qkv: torch.Tensor, cache: torch.Tensor, step: Any, angles: Angles | None = None
    ) -> torch.Tensor:
        """Store, then attend."""


@dataclass(frozen=True, slots=True)
class Kernels:
    """A model's device, its dtype and its operations; the reference documents each of them."""

    device: torch.device
    dtype: torch.dtype
    pack_linear: Callable[[torch.Tensor, torch.Tensor | None], LinearOperation]
    pack_output: Callable[[torch.Tensor, torch.Tensor | None], LinearOperation]
    prepare_norm: Callable[[torch.Tensor, float], NormOperations]
    prepare_wide_norm: Callable[[torch.Tensor, float], NormOperations]
    prepare_layer_norm: Callable[[torch.Tensor, torch.Tensor, float], NormOperations]
    activations: Mapping[str, Activation]
    gated_activations: Mapping[str, Activation]
    attention: Callable[[AttentionShape], AttentionKernel]
    fuse_layers: Callable[[Sequence[LayerParts | None], NormOperations], StackOperation | None]


def reference(device: torch.device, dtype: torch.dtype) -> Kernels:
    """Plain torch throughout."""
    return Kernels(
        device=device,
        dtype=dtype,
        pack_linear=linear.pack,
        pack_output=_widening(linear.pack),
        prepare_norm=norm.prepare,
        prepare_wide_norm=norm.prepare_wide,
        prepare_layer_norm=norm.prepare_layer,
        activations=ACTIVATIONS,
        gated_activations=GATED_ACTIVATIONS,
        attention=partial(PagedAttention, device=device, dtype=dtype),
        fuse_layers=keep_layers,
    )


def select(device: torch.device, dtype: torch.dtype, library: Library | None = None) -> Kernels:
    """The fastest implementations for this device and dtype; ``library``: those in C for CPUs."""
    kernels = reference(device, dtype)
    if device.type != "cpu":
        return kernels
    pack = cpu_linear.choose_pack(dtype)
    kernels = replace(
        kernels,
        pack_linear=pack,
        pack_output=_widening(pack),
        prepare_norm=cpu_norm.prepare,
    )
    if library is None or ELEMENTS.get(dtype) not in library.variant.elements:
        return kernels
    if cpu_linear.native_works(library, dtype):
        kernels = replace(
            kernels,
            pack_linear=partial(cpu_linear.pack_native, library),
            pack_output=partial(cpu_linear.pack_native, library, output=torch.float32),
            fuse_layers=partial(fuse_layers, library),
        )
    silu = pointwise.silu_and_multiply(library, dtype)
    return replace(
        kernels,
        prepare_norm=partial(pointwise.prepare_norm, library, dtype),
        prepare_wide_norm=partial(pointwise.prepare_norm, library, dtype),
        gated_activations={**kernels.gated_activations, "silu": silu, "swish": silu},
        attention=partial(_attention, kernels.attention, library, dtype),
    )


def _attention(
    otherwise: Callable[[AttentionShape], AttentionKernel],
    library: Library,
    dtype: torch.dtype,
    shape: AttentionShape,
) -> AttentionKernel:
    if NativeAttention.fits(shape, dtype):
        return NativeAttention(library, shape, dtype)
    return otherwise(shape)


def _widening(
    pack: Callable[[torch.Tensor, torch.Tensor | None], LinearOperation],
) -> Callable[[torch.Tensor, torch.Tensor | None], LinearOperation]:
    return lambda weight, bias: linear.widened(pack(weight, bias))


def select_summary(device: torch.device, library: Library | None = None) -> Summary:
    """What the sampler asks of logits: see ``reference.sampling``."""
    if device.type == "cpu" and library is not None:
        return pointwise.summarize(library)
    return sampling.summarize
