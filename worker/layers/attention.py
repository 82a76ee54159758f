"""Attention between its projections: rotate, store, attend. What a step shares between layers."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from worker.cache import KVCache
from worker.inputs import StepInputs
from worker.kernels.attention import AttentionKernel
from worker.kernels.reference.attention import Angles, AttentionShape
from worker.kernels.reference.norm import HeadNorms
from worker.kernels.select import Kernels
from worker.kernels.stack import StackStep
from worker.layers.rotary import Rotary, RotaryParameters
from worker.sharding import Units


@dataclass(frozen=True, slots=True)
class LayerAttention:
    """What the attention of one layer may differ in from that of others."""

    rotary: RotaryParameters | None
    """None: queries and keys are not rotated."""
    window: int | None
    """How many of the latest tokens are seen, itself included; None: all."""


@dataclass(frozen=True, slots=True)
class KindStep:
    """What all attention layers of one kind have in common in one forward pass."""

    angles: Angles | None
    plan: Any  # the kernel's own


@dataclass(frozen=True, slots=True)
class Step:
    """What all attention layers of one forward pass have in common."""

    kinds: list[KindStep]
    cache: KVCache


class Attention:
    """Causal attention over the paged cache, for all layers: this shard's heads. No weights."""

    def __init__(
        self,
        kernels: Kernels,
        shape: AttentionShape,
        layers: tuple[LayerAttention, ...],
        *,
        sinks: bool = False,
    ) -> None:
        """``shape`` is the whole model's. ``sinks``: heads have some, each layer its own."""
        sharding = kernels.sharding
        heads, kv_heads = Units(shape.heads), Units(shape.kv_heads)
        shape = replace(shape, heads=sharding.length(heads), kv_heads=sharding.length(kv_heads))
        self.with_sinks = partial(kernels.sink_attention, shape)
        """For one layer, with its own [heads of this shard], if layers have some."""
        self.kernel: AttentionKernel
        """Of all layers, or what plans for those that have sinks."""
        if sinks:
            self.kernel = self.with_sinks(torch.zeros(shape.heads, device=kernels.device))
        else:
            self.kernel = kernels.attention(shape)
        self._row = (-1, shape.heads + 2 * shape.kv_heads, shape.head_dim)
        self._queries = shape.heads * shape.head_dim
        self._keys = self._queries + shape.kv_heads * shape.head_dim
        kinds = list(dict.fromkeys(layers))
        self._kind_of = [kinds.index(layer) for layer in layers]
        self._windows = tuple(kind.window for kind in kinds)
        # Each set of parameters has one table of angles, whatever the number of kinds with it.
        tables = {
            kind.rotary: Rotary(kind.rotary, kernels.device, kernels.dtype)
            for kind in kinds
            if kind.rotary is not None
        }
        self._rotaries = list(tables.values())
        self._rotary_of = [
            None if kind.rotary is None else list(tables).index(kind.rotary) for kind in kinds
        ]

    def begin(self, inputs: StepInputs, cache: KVCache) -> Step:
        """Work out, once, what every layer needs."""
        longest = max(inputs.lengths_host)
        angles = [rotary.at(inputs.positions, longest) for rotary in self._rotaries]
        plans = self.kernel.plans(inputs, cache.blocks, self._windows)
        kinds = [
            KindStep(None if number is None else angles[number], plan)
            for number, plan in zip(self._rotary_of, plans, strict=True)
        ]
        return Step(kinds, cache)

    def of_stack(self, step: Step) -> StackStep:
        """The same for kernels that run all layers at once."""
        kinds = [(kind.plan, kind.angles) for kind in step.kinds]
        return StackStep(kinds, self._kind_of, step.cache.layers)

    def queries_and_keys(self, qkv: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Views of [T, (heads + 2 kv heads) · head_dim], for norms between projection and call."""
        return qkv[:, : self._queries], qkv[:, self._queries : self._keys]

    def __call__(
        self,
        qkv: torch.Tensor,
        step: Step,
        layer: int,
        norms: HeadNorms | None = None,
        kernel: AttentionKernel | None = None,
    ) -> torch.Tensor:
        """[T, (heads + 2 kv heads) · head_dim], overwritten, to [T, heads · head_dim].

        ``kernel``: that of a layer with sinks.
        """
        rows = qkv.view(self._row)
        kind = step.kinds[self._kind_of[layer]]
        cache, scales = step.cache.layers[layer], step.cache.scales[layer]
        kernel = kernel or self.kernel
        return kernel.attend(rows, cache, kind.plan, kind.angles, norms, scales)
