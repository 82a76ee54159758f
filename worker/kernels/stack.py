"""What a stack of decoder layers is made of, for kernels that run all of it as one operation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from worker.inputs import StepInputs
from worker.kernels.reference.attention import Angles
from worker.kernels.reference.linear import LinearOperation
from worker.kernels.reference.norm import NormOperations


@dataclass(frozen=True, slots=True)
class LayerParts:
    """One layer: attention and a gated block, each after a norm, each added to the residual."""

    input_norm: NormOperations
    qkv: LinearOperation
    output: LinearOperation
    inner_norm: NormOperations
    gate_up: LinearOperation
    """With its activation."""
    down: LinearOperation


@dataclass(frozen=True, slots=True)
class StackStep:
    """What attention needs in one step."""

    kinds: Sequence[tuple[Any, Angles | None]]
    """The kernel's plan, and angles, of each kind of layer."""
    kind_of: Sequence[int]
    """Of each layer."""
    caches: Sequence[torch.Tensor]
    """Of each layer; the same object as long as they are the same."""


class StackOperation(Protocol):
    """All layers and the norm behind them."""

    def __call__(self, residual: torch.Tensor, inputs: StepInputs, step: StackStep) -> torch.Tensor:
        """[T, hidden], overwritten, to a new tensor [R, hidden] of ``inputs.logit_rows``."""


def keep_layers(parts: Sequence[LayerParts | None], norm: NormOperations) -> StackOperation | None:
    """The reference has no such operation: layers run one by one."""
    return None
