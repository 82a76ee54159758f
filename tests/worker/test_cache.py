"""The KV tensors' shape and size."""

from dataclasses import dataclass

import pytest
import torch

from worker.cache import KVCache


@dataclass(frozen=True)
class Shape:
    num_layers: int = 3
    num_kv_heads: int = 2
    head_dim: int = 24


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bytes_per_block_is_what_a_block_takes(dtype):
    cache = KVCache(Shape(), 10, torch.device("cpu"), dtype)
    assert cache.blocks == 10
    assert len(cache.layers) == 3
    assert all(layer.shape == (2, 10, 2, 16, 24) for layer in cache.layers)
    assert all(layer.dtype == dtype for layer in cache.layers)
    total = sum(layer.nbytes for layer in cache.layers)
    assert KVCache.bytes_per_block(Shape(), dtype) * 10 == total
