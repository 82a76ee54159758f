"""A cache of more numbers than 32 bits count, as a GPU of 141 GB has it: nothing wraps around.

Its pages are the system's, which come when they are written: of 4 GB these tests touch some kB.
"""

import mmap

import pytest
import torch

from worker.kernels.reference.attention import AttentionShape
from worker.kernels.triton.chunks import attend_chunks
from worker.kernels.triton.decode import attend_decoding, choose_splitting, make_parts
from worker.kernels.triton.store import store

SHAPE = AttentionShape(heads=4, kv_heads=2, head_dim=64, scale=0.1)
BLOCKS = (1 << 31) // (SHAPE.kv_heads * 16 * SHAPE.head_dim) + 64
"""Keys alone are more than 2**31 numbers."""
NO_RESERVE = 0x4000
"""Of mmap(2): not all of Python's versions have a name for it."""
LENGTH = 40
TABLE = [BLOCKS - 1, 3, BLOCKS - 40]


@pytest.fixture(scope="module")
def cache():
    """In 8 bits [2, blocks, kv heads, 16, head_dim]."""
    numbers = 2 * BLOCKS * SHAPE.kv_heads * 16 * SHAPE.head_dim
    memory = mmap.mmap(-1, numbers, flags=mmap.MAP_PRIVATE | NO_RESERVE)
    whole = torch.frombuffer(memory, dtype=torch.uint8).view(torch.float8_e4m3fn)
    return whole.view(2, BLOCKS, SHAPE.kv_heads, 16, SHAPE.head_dim)


def test_what_is_stored_beyond_is_read_there(cache):
    assert cache.stride(0) > 1 << 31
    rows = SHAPE.heads + 2 * SHAPE.kv_heads
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(LENGTH, rows, SHAPE.head_dim, generator=generator)
    qkv[:, SHAPE.heads :] = qkv[:, SHAPE.heads :].to(torch.float8_e4m3fn).float()
    places = torch.arange(LENGTH)
    tables = torch.tensor([TABLE], dtype=torch.int32)  # kernels are to widen what they multiply
    slots = tables[0, places // 16] * 16 + places % 16
    queries = store(qkv, slots.int(), cache, shape=SHAPE, angles=None, norms=None)
    written = cache.view(torch.uint8)[:, slots // 16, :, slots % 16].view(torch.float8_e4m3fn)
    assert torch.equal(written.float().flatten(1, 2), qkv[:, SHAPE.heads :])

    keys, values = qkv[:, SHAPE.heads :].view(LENGTH, 2, SHAPE.kv_heads, -1).unbind(1)
    group = SHAPE.heads // SHAPE.kv_heads
    scores = torch.einsum("qhd,khd->hqk", queries, keys.repeat_interleave(group, 1)) * SHAPE.scale
    later = places[:, None] < places
    weights = scores.masked_fill(later, float("-inf")).softmax(-1)
    wanted = torch.einsum("hqk,khd->qhd", weights, values.repeat_interleave(group, 1)).flatten(1)

    output = torch.empty(LENGTH, SHAPE.heads * SHAPE.head_dim)
    tiles = torch.tensor([[0, first, 8, first] for first in range(0, LENGTH, 8)]).int()
    attend_chunks(queries, cache, tables, tiles, output, shape=SHAPE, window=0)
    torch.testing.assert_close(output, wanted, atol=1e-5, rtol=1e-5)
    splitting = choose_splitting(1, SHAPE.kv_heads, 132)
    decoded = torch.empty(1, SHAPE.heads * SHAPE.head_dim)
    attend_decoding(
        queries[-1:], cache, tables, torch.tensor([LENGTH]), decoded, shape=SHAPE, window=0,
        splitting=splitting, parts=make_parts(1, SHAPE, splitting, queries.device),
    )  # fmt: skip
    torch.testing.assert_close(decoded, wanted[-1:], atol=1e-5, rtol=1e-5)
