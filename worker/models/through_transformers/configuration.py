"""What the engine and the cache need to know of a model that transformers runs."""

from dataclasses import dataclass

import torch

from worker.cache import LayerShape


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
