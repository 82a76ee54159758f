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
from worker.kernels.cpu.linear import Kind
from worker.kernels.reference import linear, norm, sampling
from worker.kernels.reference.activation import ACTIVATIONS, GATED_ACTIVATIONS, Activation
from worker.kernels.reference.attention import Angles, AttentionShape, PagedAttention
from worker.kernels.reference.linear import PackLinear
from worker.kernels.reference.norm import NormOperations
from worker.kernels.reference.sampling import Summary
from worker.kernels.stack import LayerParts, StackOperation, keep_layers
from worker.sharding import WHOLE, Sharding


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
        self, qkv: torch.Tensor, cache: torch.Tensor, step: Any, angles: Angles | None = None
    ) -> torch.Tensor:
        """Store, then attend."""


@dataclass(frozen=True, slots=True)
class Kernels:
    """A model's device and dtype, which part of it is here, and its operations.

    The reference documents each of them.
    """

    device: torch.device
    dtype: torch.dtype
    sharding: Sharding
    pack_linear: PackLinear
    pack_output: PackLinear
    pack_gated: Mapping[str, PackLinear]
    """By the name of the activation that follows."""
    prepare_norm: Callable[[torch.Tensor, float], NormOperations]
    prepare_wide_norm: Callable[[torch.Tensor, float], NormOperations]
    prepare_layer_norm: Callable[[torch.Tensor, torch.Tensor, float], NormOperations]
    activations: Mapping[str, Activation]
    attention: Callable[[AttentionShape], AttentionKernel]
    fuse_layers: Callable[[Sequence[LayerParts | None], NormOperations], StackOperation | None]


def reference(device: torch.device, dtype: torch.dtype, sharding: Sharding = WHOLE) -> Kernels:
    """Plain torch throughout."""
    return Kernels(
        device=device,
        dtype=dtype,
        sharding=sharding,
        pack_linear=linear.pack,
        pack_output=linear.widened(linear.pack),
        pack_gated=_gating(linear.pack, GATED_ACTIVATIONS),
        prepare_norm=norm.prepare,
        prepare_wide_norm=norm.prepare_wide,
        prepare_layer_norm=norm.prepare_layer,
        activations=ACTIVATIONS,
        attention=partial(PagedAttention, device=device, dtype=dtype),
        fuse_layers=keep_layers,
    )


def select(
    device: torch.device,
    dtype: torch.dtype,
    library: Library | None = None,
    sharding: Sharding = WHOLE,
) -> Kernels:
    """The fastest implementations for this device and dtype; ``library``: those in C for CPUs."""
    kernels = reference(device, dtype, sharding)
    if device.type != "cpu":
        return kernels
    pack = cpu_linear.choose_pack(dtype)
    kernels = replace(
        kernels,
        pack_linear=pack,
        pack_output=linear.widened(pack),
        pack_gated=_gating(pack, GATED_ACTIVATIONS),
        prepare_norm=cpu_norm.prepare,
    )
    if library is None or ELEMENTS.get(dtype) not in library.variant.elements:
        return kernels
    silu = pointwise.silu_and_multiply(library, dtype)
    activations = {**GATED_ACTIVATIONS, "silu": silu, "swish": silu}
    kernels = replace(
        kernels,
        pack_gated=_gating(pack, activations),
        prepare_norm=partial(pointwise.prepare_norm, library, dtype),
        prepare_wide_norm=partial(pointwise.prepare_norm, library, dtype),
        attention=partial(_attention, kernels.attention, library, dtype),
    )
    if not cpu_linear.native_works(library, dtype):
        return kernels
    pack = partial(cpu_linear.pack_native, library)
    gated = partial(pack, kind=Kind.GATED)
    alone = sharding.size == 1  # others have sums between their layers
    return replace(
        kernels,
        pack_linear=pack,
        pack_output=partial(pack, kind=Kind.WIDE),
        pack_gated={**_gating(pack, activations), "silu": gated, "swish": gated},
        fuse_layers=partial(fuse_layers, library) if alone else keep_layers,
    )


def _gating(pack: PackLinear, activations: Mapping[str, Activation]) -> dict[str, PackLinear]:
    return {name: linear.gated(pack, activation) for name, activation in activations.items()}


def _attention(
    otherwise: Callable[[AttentionShape], AttentionKernel],
    library: Library,
    dtype: torch.dtype,
    shape: AttentionShape,
) -> AttentionKernel:
    if NativeAttention.fits(shape, dtype):
        return NativeAttention(library, shape, dtype)
    return otherwise(shape)


def select_summary(device: torch.device, library: Library | None = None) -> Summary:
    """What the sampler asks of logits: see ``reference.sampling``."""
    if device.type == "cpu" and library is not None:
        return pointwise.summarize(library)
    return sampling.summarize
