"""The KV tensors' shape and size."""

from dataclasses import dataclass

import pytest
import torch

from worker.cache import KVCache, LayerShape


@dataclass(frozen=True)
class Shape:
    kv_layers: tuple[LayerShape, ...] = (LayerShape(2, 24),) * 2 + (LayerShape(4, 8),)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bytes_per_block_is_what_a_block_takes(dtype):
    cache = KVCache(Shape(), 10, torch.device("cpu"), dtype)
    assert cache.blocks == 10
    assert len(cache.layers) == 3
    shapes = [tuple(layer.shape) for layer in cache.layers]
    assert shapes == [(2, 10, 2, 16, 24), (2, 10, 2, 16, 24), (2, 10, 4, 16, 8)]
    assert all(layer.dtype == dtype for layer in cache.layers)
    total = sum(layer.nbytes for layer in cache.layers)
    assert KVCache.bytes_per_block(Shape(), dtype) * 10 == total
