"""The KV tensors of a worker: one per layer, cut into blocks of 16 tokens.

Runs in the worker. Owns the memory; which block belongs to whom is the scheduler's business. Block
0 is never leased: padding writes there. Knows nothing of sequences.
"""

from typing import Protocol

import torch

from common.messages import BLOCK_TOKENS


class CacheShape(Protocol):
    """What decides the size of a block; a model's configuration has it."""

    @property
    def num_layers(self) -> int:
        """Layers with keys and values."""

    @property
    def num_kv_heads(self) -> int:
        """Heads of keys and values in each."""

    @property
    def head_dim(self) -> int:
        """Channels of a head."""


class KVCache:
    """Keys and values of ``blocks`` blocks.

    The layout puts a block's tokens of one head side by side, [16, head_dim]: gathering a sequence
    copies runs of 16 · head_dim numbers and yields a matrix per sequence and head.
    """

    def __init__(
        self, configuration: CacheShape, blocks: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.blocks = blocks
        shape = (2, blocks, configuration.num_kv_heads, BLOCK_TOKENS, configuration.head_dim)
        self.layers = [
            torch.empty(shape, dtype=dtype, device=device) for _ in range(configuration.num_layers)
        ]
        """Per layer [2, blocks, kv heads, 16, head_dim]: keys, then values. Not zeroed: attention
        clears a block when it is entered, so that a CPU's memory is taken as it is used."""

    @staticmethod
    def bytes_per_block(configuration: CacheShape, dtype: torch.dtype) -> int:
        """Bytes of one block in all layers."""
        vectors = 2 * configuration.num_layers * configuration.num_kv_heads * BLOCK_TOKENS
        return vectors * configuration.head_dim * dtype.itemsize
