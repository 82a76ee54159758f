"""Chooses, once at load, which implementation of every operation a model runs on.

The result is handed to every layer: no layer asks where it runs.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch

from common.errors import StartupError
from worker.kernels.attention import (
    AttentionKernel,
    AttentionMaker,
    SinkAttentionMaker,
    choose_gpu_attention,
    has_triton,
)
from worker.kernels.cpu import linear as cpu_linear
from worker.kernels.cpu import norm as cpu_norm
from worker.kernels.cpu import pointwise
from worker.kernels.cpu.attention import NativeAttention
from worker.kernels.cpu.layers import fuse_layers
from worker.kernels.cpu.library import ELEMENTS, Library, cached_elements
from worker.kernels.cpu.linear import Kind
from worker.kernels.cpu.quantized import pack_codes
from worker.kernels.low_rank import LowRankKernel
from worker.kernels.mixture import ExpertPacks, MakeMixture, holding
from worker.kernels.reference import linear, norm
from worker.kernels.reference.activation import ACTIVATIONS, GATED_ACTIVATIONS, Activation
from worker.kernels.reference.attention import AttentionShape, PagedAttention
from worker.kernels.reference.gather import Gather, gather_inputs
from worker.kernels.reference.linear import PackCodes, PackLinear
from worker.kernels.reference.low_rank import ReferenceLowRank
from worker.kernels.reference.mixture import OneByOne
from worker.kernels.reference.norm import NormOperations
from worker.kernels.reference.quantized import Weight
from worker.kernels.reference.sinks import SinkAttention
from worker.kernels.sampling import SEEING, UNSEEN, SamplingKernels
from worker.kernels.stack import FuseLayers, keep_layers
from worker.race import SparseDraw
from worker.sharding import WHOLE, Sharding
from worker.transfers import transfers_of

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Choices:
    """What the settings say of kernels."""

    custom: bool = True
    """False: torch's operators alone."""
    attention: str = "auto"
    """On GPUs: ``auto``, or a name of ``GPU_ATTENTION``."""
    kv_dtype: torch.dtype | None = None
    """What keys and values are cached in; None: the model's dtype."""


DEFAULTS = Choices()

Encode = Callable[[torch.Tensor], Weight]
"""Codes of a weight; the weight itself where its shape does not suit them."""


def _settled() -> None:
    """Nothing is chosen by measuring."""


@dataclass(frozen=True, slots=True)
class Kernels:
    """A model's device and dtype, which part of it is here, and its operations.

    The reference documents each of them.
    """

    device: torch.device
    dtype: torch.dtype
    sharding: Sharding
    repacks: bool
    """Whether packing a weight keeps nothing of the tensor that it is given."""
    pack_linear: PackLinear
    pack_output: PackLinear
    pack_activated: Mapping[str, PackLinear]
    """By the name of the activation that follows."""
    pack_gated: Mapping[str, PackLinear]
    """The same where that is gated."""
    prepare_norm: Callable[[torch.Tensor, float], NormOperations]
    prepare_wide_norm: Callable[[torch.Tensor, float], NormOperations]
    prepare_layer_norm: Callable[[torch.Tensor, torch.Tensor, float], NormOperations]
    attention: AttentionMaker
    sink_attention: SinkAttentionMaker
    fuse_layers: FuseLayers
    low_rank: LowRankKernel
    """For adapters."""
    mix: MakeMixture = OneByOne
    """Of the experts of a mixture, made with ``of_experts``."""
    experts: ExpertPacks | None = None
    """None: as other layers."""
    settle: Callable[[], None] = _settled
    """To be called once the weights are there: what is chosen by measuring is chosen then."""
    encode: Encode | None = None
    """What is to become of weights that are no codes yet: the loader's; None: nothing."""
    encode_output: Encode | None = None
    """The same of the output layer's."""

    def of_experts(self) -> "Kernels":
        """For the layers that ``mix`` is given."""
        if self.experts is None:
            return self
        return replace(self, pack_linear=self.experts.linear, pack_gated=self.experts.gated)


def reference(device: torch.device, dtype: torch.dtype, sharding: Sharding = WHOLE) -> Kernels:
    """Plain torch throughout."""
    return Kernels(
        device=device,
        dtype=dtype,
        sharding=sharding,
        repacks=False,
        pack_linear=linear.pack,
        pack_output=linear.widened(linear.pack),
        pack_activated=_activating(linear.pack, ACTIVATIONS),
        pack_gated=_activating(linear.pack, GATED_ACTIVATIONS),
        prepare_norm=norm.prepare,
        prepare_wide_norm=norm.prepare_wide,
        prepare_layer_norm=norm.prepare_layer,
        attention=partial(PagedAttention, device=device, dtype=dtype),
        sink_attention=partial(SinkAttention, device=device, dtype=dtype),
        fuse_layers=keep_layers,
        low_rank=ReferenceLowRank(),
    )


def select(
    device: torch.device,
    dtype: torch.dtype,
    library: Library | None = None,
    sharding: Sharding = WHOLE,
    choices: Choices = DEFAULTS,
) -> Kernels:
    """The fastest implementations for this device and dtype; ``library``: those in C for CPUs.

    Raises StartupError where what was chosen is not there.
    """
    kernels = reference(device, dtype, sharding)
    if device.type == "cuda" and choices.custom:
        return _on_gpu(kernels, choices)
    if device.type != "cpu":
        return kernels
    coded: PackCodes = linear.pack
    if library is not None and ELEMENTS.get(dtype) in library.variant.elements:
        coded = partial(pack_codes, library, dtype)
    pack = linear.either(cpu_linear.choose_pack(dtype), coded)
    kernels = replace(
        kernels,
        pack_linear=pack,
        pack_output=linear.widened(pack),
        pack_activated=_activating(pack, ACTIVATIONS),
        pack_gated=_activating(pack, GATED_ACTIVATIONS),
        prepare_norm=cpu_norm.prepare,
    )
    if library is None or ELEMENTS.get(dtype) not in library.variant.elements:
        return kernels
    kv_dtype = choices.kv_dtype or dtype
    reads_cache = cached_elements(dtype, kv_dtype) is not None
    plain = pointwise.activations(library, dtype)
    gated = pointwise.gated_activations(library, dtype)
    kernels = replace(
        kernels,
        pack_activated=_activating(pack, plain),
        pack_gated=_activating(pack, gated),
        prepare_norm=partial(pointwise.prepare_norm, library, dtype),
        prepare_wide_norm=partial(pointwise.prepare_norm, library, dtype),
        prepare_layer_norm=partial(pointwise.prepare_layer_norm, library, dtype),
    )
    if reads_cache:
        attention = partial(_attention, kernels.attention, library, dtype, kv_dtype)
        kernels = replace(kernels, attention=attention)
    if not cpu_linear.native_works(library, dtype):
        return kernels
    native = partial(_native, library, dtype)
    pack, pack_silu = native(Kind.NARROW), native(Kind.GATED)
    alone = sharding.size == 1 and reads_cache  # shards have sums between their layers
    return replace(
        kernels,
        repacks=True,
        pack_linear=pack,
        pack_output=native(Kind.WIDE),
        pack_activated=_activating(pack, plain),
        pack_gated={**_activating(pack, gated), "silu": pack_silu, "swish": pack_silu},
        fuse_layers=partial(fuse_layers, library, dtype) if alone else keep_layers,
    )


def _native(library: Library, dtype: torch.dtype, kind: Kind) -> PackLinear:
    return linear.either(
        partial(cpu_linear.pack_native, library, dtype, kind=kind),
        partial(pack_codes, library, dtype, kind=kind),
    )


def _on_gpu(kernels: Kernels, choices: Choices) -> Kernels:
    """With Triton's where it is installed, and the attention that was chosen."""
    otherwise = kernels.attention
    if not has_triton():
        if choices.attention != "auto":
            raise StartupError(
                f"--attention-kernel {choices.attention} needs Triton: pip install triton"
            )
        _log.warning("Triton is not installed: this GPU runs torch's operators alone, slowly")
        return kernels
    from worker.kernels.triton.activation import silu_and_multiply
    from worker.kernels.triton.attention import TritonAttention
    from worker.kernels.triton.linear import Trials, in_turn_ms
    from worker.kernels.triton.low_rank import TritonLowRank
    from worker.kernels.triton.mixture import mix
    from worker.kernels.triton.norm import prepare_norm
    from worker.kernels.triton.quantized import pack_codes as pack_in_triton

    fitting = choose_gpu_attention(
        choices.attention, kernels.device, kernels.dtype, choices.kv_dtype or kernels.dtype
    )

    def attention_with_sinks(shape: AttentionShape, sinks: torch.Tensor) -> AttentionKernel:
        if not TritonAttention.fits(shape, kernels.dtype):
            return kernels.sink_attention(shape, sinks)
        return TritonAttention(shape, device=kernels.device, dtype=kernels.dtype, sinks=sinks)

    trials = Trials(partial(in_turn_ms, transfers_of(kernels.device)))
    pack = linear.either(trials.pack, pack_in_triton)
    pack_silu = linear.either(trials.pack_silu, linear.activated(pack, silu_and_multiply))
    held = holding(linear.either(linear.pack, pack_in_triton))
    in_one_pass = {"silu": silu_and_multiply, "swish": silu_and_multiply}
    return replace(
        kernels,
        pack_linear=pack,
        pack_output=linear.either(trials.pack_wide, linear.widened(pack)),
        pack_activated=_activating(pack, ACTIVATIONS),
        pack_gated={**_activating(pack, GATED_ACTIVATIONS), "silu": pack_silu, "swish": pack_silu},
        mix=mix,
        experts=ExpertPacks(held, _activating(held, {**GATED_ACTIVATIONS, **in_one_pass})),
        settle=trials.settle,
        prepare_norm=prepare_norm,
        prepare_wide_norm=prepare_norm,
        attention=lambda shape: fitting(shape) or otherwise(shape),
        sink_attention=attention_with_sinks,
        low_rank=TritonLowRank(),
    )


def _activating(pack: PackLinear, activations: Mapping[str, Activation]) -> dict[str, PackLinear]:
    return {name: linear.activated(pack, activation) for name, activation in activations.items()}


def _attention(
    otherwise: AttentionMaker,
    library: Library,
    dtype: torch.dtype,
    kv_dtype: torch.dtype,
    shape: AttentionShape,
) -> AttentionKernel:
    if NativeAttention.fits(shape, dtype, kv_dtype):
        return NativeAttention(library, shape, dtype, kv_dtype)
    return otherwise(shape)


def select_sampling(
    device: torch.device, library: Library | None = None, choices: Choices = DEFAULTS
) -> SamplingKernels:
    """What the sampler runs on; ``library``: kernels in C for CPUs."""
    if _takes_triton(device, choices):
        from worker.kernels.triton.draw import draw
        from worker.kernels.triton.filters import top_k, top_p
        from worker.kernels.triton.penalties import penalize_

        return SamplingKernels(draw, top_k, top_p, penalize_)
    if device.type != "cpu":
        return UNSEEN
    if library is None:
        return SEEING
    return replace(SEEING, draw=SparseDraw(pointwise.summarize(library)))


def select_gather(device: torch.device, choices: Choices = DEFAULTS) -> Gather:
    """The inputs of a step in which all decode: see ``reference.gather``."""
    if _takes_triton(device, choices):
        from worker.kernels.triton.gather import gather_inputs as in_triton

        return in_triton
    return gather_inputs


def _takes_triton(device: torch.device, choices: Choices) -> bool:
    return device.type == "cuda" and choices.custom and has_triton()
