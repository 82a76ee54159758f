"""What others need to know of a model that transformers runs."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch

from worker.cache import LayerShape
from worker.layers.layer import Slot


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignConfiguration:
    """Measured on the loaded model rather than read: classes name these things differently."""

    architecture: str
    vocab_size: int
    """Width of the logits."""
    max_position_embeddings: int
    """The longest sequence that is computed as it is meant."""
    dtype: torch.dtype
    kv_layers: tuple[LayerShape, ...] = ()
    """Of our paged cache, one per call of the attention function; none if the class keeps its
    own."""


def weights_of(model: torch.nn.Module, path: str) -> Iterator[Slot]:
    """Its weights by name and shape, each once; transformers has filled them."""
    prefix = f"{path}." if path else ""
    for name, weight in model.named_parameters():
        yield Slot(prefix + name, tuple(weight.shape), partial(_copy, weight))


def _copy(weight: torch.Tensor, stored: torch.Tensor) -> None:
    weight.copy_(stored)
