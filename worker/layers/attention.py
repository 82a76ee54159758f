"""Attention between its projections: rotate, store, attend. What a step shares between layers."""

from dataclasses import dataclass

import torch

from worker.cache import KVCache
from worker.inputs import StepInputs
from worker.kernels.reference.attention import AttentionPlan
from worker.kernels.select import Kernels
from worker.layers.rotary import Rotary


@dataclass(frozen=True, slots=True)
class AttentionShape:
    """Heads of an attention layer."""

    heads: int
    kv_heads: int
    head_dim: int


@dataclass(frozen=True, slots=True)
class Step:
    """What all attention layers of one forward pass have in common."""

    cosines: torch.Tensor  # [T, 1, head_dim]
    sines: torch.Tensor  # [T, 1, head_dim]
    plan: AttentionPlan
    cache: KVCache


class Attention:
    """Causal attention of one shape over the paged cache, for all layers. Has no weights."""

    def __init__(self, kernels: Kernels, shape: AttentionShape, rotary: Rotary) -> None:
        self._rotary = rotary
        self._rotate_ = kernels.rotate_
        self._kernel = kernels.attention(shape.heads, shape.kv_heads, shape.head_dim)
        self._rotated = shape.heads + shape.kv_heads
        self._row = (-1, shape.heads + 2 * shape.kv_heads, shape.head_dim)

    def begin(self, inputs: StepInputs, cache: KVCache) -> Step:
        """Work out, once, what every layer needs."""
        cosines, sines = self._rotary.at(inputs.positions, max(inputs.lengths_host))
        return Step(cosines, sines, self._kernel.plan(inputs, cache.blocks), cache)

    def __call__(self, qkv: torch.Tensor, step: Step, layer: int) -> torch.Tensor:
        """[T, (heads + 2 kv heads) · head_dim], overwritten, to [T, heads · head_dim]."""
        rows = qkv.view(self._row)
        self._rotate_(rows[:, : self._rotated], step.cosines, step.sines)
        return self._kernel.attend(rows, step.cache.layers[layer], step.plan)
