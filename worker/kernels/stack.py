"""How a decoder's layers are described to kernels that run all of them as one operation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from worker.inputs import StepInputs
from worker.kernels.attention import AttentionKernel
from worker.kernels.reference.attention import Angles
from worker.kernels.reference.linear import LinearOperation
from worker.kernels.reference.norm import HeadNorms, NormOperations


@dataclass(frozen=True, slots=True)
class Block:
    """Half of a layer: its result is added to the residual, which it begins with.

    What stands between its linear layers is attention, or an activation that belongs to ``first``.
    """

    before: NormOperations | None
    """Of the residual; None: it is read as it is."""
    first: LinearOperation
    second: LinearOperation
    after: NormOperations | None = None
    """Of the result."""


@dataclass(frozen=True, slots=True)
class LayerParts:
    """One layer."""

    attention: Block
    feed_forward: Block
    head_norms: HeadNorms | None = None
    """Between projection and rotation: of each head or, being as long, of all heads together."""
    parallel: bool = False
    """Both blocks read the same residual; else the second reads what the first has added to."""


@dataclass(frozen=True, slots=True)
class StackStep:
    """What attention needs in one step."""

    kinds: Sequence[tuple[Any, Angles | None]]
    """The kernel's plan, and angles, of each kind of layer."""
    kind_of: Sequence[int]
    """Of each layer; always the same."""
    caches: Sequence[torch.Tensor]
    """Of each layer; the same object as long as they are the same."""


class StackOperation(Protocol):
    """All layers and the norm behind them."""

    def __call__(self, residual: torch.Tensor, inputs: StepInputs, step: StackStep) -> torch.Tensor:
        """[T, hidden], overwritten, to a new tensor [R, hidden] of ``inputs.logit_rows``."""


FuseLayers = Callable[
    [Sequence[LayerParts | None], NormOperations, AttentionKernel], StackOperation | None
]
"""Makes one of layers, the norm behind them and their attention; None where it cannot."""


def keep_layers(
    parts: Sequence[LayerParts | None], norm: NormOperations, attention: AttentionKernel
) -> StackOperation | None:
    """The reference has no such operation: layers run one by one."""
    return None
