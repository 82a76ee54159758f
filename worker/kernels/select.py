"""Chooses, once at load, which implementation of every operation a model runs on.

The result is handed to every layer: no layer asks where it runs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch

from worker.kernels.cpu import linear as cpu_linear
from worker.kernels.cpu import norm as cpu_norm
from worker.kernels.reference import linear, norm, rotary
from worker.kernels.reference.activation import ACTIVATIONS, GATED_ACTIVATIONS, Activation
from worker.kernels.reference.attention import AttentionShape, PagedAttention
from worker.kernels.reference.linear import LinearOperation
from worker.kernels.reference.norm import NormOperations


@dataclass(frozen=True, slots=True)
class Kernels:
    """A model's device, its dtype and its operations; the reference documents each of them."""

    device: torch.device
    dtype: torch.dtype
    pack_linear: Callable[[torch.Tensor, torch.Tensor | None], LinearOperation]
    prepare_norm: Callable[[torch.Tensor, float], NormOperations]
    prepare_wide_norm: Callable[[torch.Tensor, float], NormOperations]
    prepare_layer_norm: Callable[[torch.Tensor, torch.Tensor, float], NormOperations]
    activations: Mapping[str, Activation]
    gated_activations: Mapping[str, Activation]
    rotate_: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], None]
    attention: Callable[[AttentionShape], PagedAttention]


def reference(device: torch.device, dtype: torch.dtype) -> Kernels:
    """Plain torch throughout."""
    return Kernels(
        device=device,
        dtype=dtype,
        pack_linear=linear.pack,
        prepare_norm=norm.prepare,
        prepare_wide_norm=norm.prepare_wide,
        prepare_layer_norm=norm.prepare_layer,
        activations=ACTIVATIONS,
        gated_activations=GATED_ACTIVATIONS,
        rotate_=rotary.rotate_,
        attention=partial(PagedAttention, device=device, dtype=dtype),
    )


def select(device: torch.device, dtype: torch.dtype) -> Kernels:
    """The fastest implementations for this device and dtype."""
    kernels = reference(device, dtype)
    if device.type == "cpu":
        return replace(
            kernels, pack_linear=cpu_linear.choose_pack(dtype), prepare_norm=cpu_norm.prepare
        )
    return kernels
