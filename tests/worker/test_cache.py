"""The KV tensors' shape and size."""

import mmap
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


def test_whole_pages_of_a_large_layer_are_wanted_as_huge_ones(advised):
    """Which are refused: nothing depends on them."""
    cache = KVCache(Shape(), 1000, torch.device("cpu"), torch.bfloat16)
    large = [layer for layer in cache.layers if layer.nbytes > 2 << 20]
    assert len(large) == len(advised) == 2
    for layer, (first, size, advice) in zip(large, advised, strict=True):
        assert first % mmap.PAGESIZE == size % mmap.PAGESIZE == 0
        assert layer.data_ptr() <= first < layer.data_ptr() + mmap.PAGESIZE
        assert layer.nbytes - 2 * mmap.PAGESIZE < size <= layer.nbytes
        assert advice == mmap.MADV_HUGEPAGE
