"""The KV tensors of a worker: one per layer, cut into blocks of 16 tokens.

Runs in the worker. Owns the memory; which block belongs to whom is the scheduler's business. Block
0 is never leased: padding writes there. Knows nothing of sequences.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from common.messages import BLOCK_TOKENS
from worker.interfaces import UNMINDFUL, CacheMemory
from worker.kernels.cpu.pages import want_huge_pages
from worker.kernels.reference.attention import UNSCALED, KVScales
from worker.prefault import Prefault
from worker.sharding import Sharding, Units


@dataclass(frozen=True, slots=True)
class LayerShape:
    """What a layer keeps of each token: a key and a value of so many channels for each head."""

    kv_heads: int
    head_dim: int


class CacheShape(Protocol):
    """What decides the size of a block; a model's configuration has it."""

    @property
    def kv_layers(self) -> tuple[LayerShape, ...]:
        """Layers with keys and values; they may differ."""


@dataclass(frozen=True, slots=True)
class PartShape:
    """As ``CacheShape``, of a shard."""

    kv_layers: tuple[LayerShape, ...]


def part_of(shape: CacheShape, sharding: Sharding) -> CacheShape:
    """What of a model's cache one shard has: some of the heads."""
    if sharding.size == 1:
        return shape
    return PartShape(
        tuple(
            replace(layer, kv_heads=sharding.length(Units(layer.kv_heads)))
            for layer in shape.kv_layers
        )
    )


class KVCache:
    """Keys and values of ``blocks`` blocks.

    The layout puts a block's tokens of one head side by side, [16, head_dim]: gathering a sequence
    copies runs of 16 · head_dim numbers and yields a matrix per sequence and head.
    """

    def __init__(
        self,
        configuration: CacheShape,
        blocks: int,
        device: torch.device,
        dtype: torch.dtype,
        scales: Sequence[KVScales] = (),
    ) -> None:
        """``scales``: of each layer, for caches of 8 bits; none: 1."""
        self.blocks = blocks
        self.scales = list(scales) or [UNSCALED] * len(configuration.kv_layers)
        """Per layer."""
        self.layers = [
            torch.empty(
                (2, blocks, layer.kv_heads, BLOCK_TOKENS, layer.head_dim),
                dtype=dtype,
                device=device,
            )
            for layer in configuration.kv_layers
        ]
        """Per layer [2, blocks, kv heads, 16, head_dim]: keys, then values. Not zeroed: attention
        clears a block when it is entered, so that a CPU's memory is taken as it is used."""
        self.memory: CacheMemory = UNMINDFUL
        if device.type == "cpu" and self.layers:
            # PERF: a prompt of 1,000 tokens of a model of 135 M parameters fills 23 MB: 5,700
            # faults of 1.6 µs for pages of 4 kB, a third of that time for large ones.
            for layer in self.layers:
                want_huge_pages(layer)
            self.memory = Prefault(self.layers)

    @staticmethod
    def bytes_per_block(configuration: CacheShape, dtype: torch.dtype) -> int:
        """Bytes of one block in all layers."""
        numbers = sum(layer.kv_heads * layer.head_dim for layer in configuration.kv_layers)
        return 2 * numbers * BLOCK_TOKENS * dtype.itemsize
