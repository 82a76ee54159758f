"""Norms of heads, rotation and the write to the cache, in one kernel: against the reference's."""

import pytest
import torch

from worker.kernels.reference import norm as reference
from worker.kernels.reference.attention import AttentionShape
from worker.kernels.reference.norm import HeadNorms
from worker.kernels.reference.rotary import rotate_
from worker.kernels.triton.attention import fuse_norms
from worker.kernels.triton.norm import prepare_norm
from worker.kernels.triton.store import store

TOKENS, BLOCKS = 5, 4
SLOTS = torch.tensor([17, 18, 40, 63, 16])


def angles_of(channels, dtype):
    angle = torch.rand(TOKENS, 1, channels // 2) * 6
    cosines = torch.cat((angle.cos(), angle.cos()), -1)
    sines = torch.cat((-angle.sin(), angle.sin()), -1)
    both = torch.cat((cosines, sines), 1).to(dtype)  # as a table of angles hands them out
    return both[:, :1], both[:, 1:]


@pytest.mark.parametrize("turned", [None, 1.0, 0.5])
@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize(
    ("heads", "kv_heads", "head_dim", "dtype"),
    [(9, 3, 64, torch.float32), (4, 1, 96, torch.bfloat16), (1, 1, 128, torch.float16)],
)
def test_against_the_reference(heads, kv_heads, head_dim, dtype, turned, normed):
    torch.manual_seed(0)
    shape = AttentionShape(heads, kv_heads, head_dim, 1.0)
    rows = torch.randn(TOKENS, heads + 2 * kv_heads, head_dim).to(dtype)
    wide = torch.cat((rows, rows), 1)  # rows may be a part of something larger
    qkv = wide[:, : heads + 2 * kv_heads]
    angles = None if turned is None else angles_of(int(head_dim * turned), dtype)
    weights = [(torch.rand(head_dim) + 0.5).to(dtype) for _ in range(2)]
    norms = HeadNorms(*[prepare_norm(weight, 1e-2) for weight in weights]) if normed else None
    cache = torch.full((2, BLOCKS, kv_heads, 16, head_dim), float("nan"), dtype=dtype)
    before = qkv.clone()
    queries = store(
        qkv, SLOTS, cache, shape=shape, angles=angles, norms=fuse_norms(norms, qkv, shape)
    )
    assert torch.equal(qkv, before)

    wanted = before.double()
    if normed:
        exact = [reference.prepare(weight.double(), 1e-2) for weight in weights]
        HeadNorms(*exact).apply_(wanted, heads, kv_heads)
    if angles is not None:
        cosines, sines = angles
        part = wanted[:, : heads + kv_heads, : cosines.shape[-1]]
        rotate_(part, cosines.double(), sines.double())
    near = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 4e-3}[dtype]
    written = cache[:, SLOTS // 16, :, SLOTS % 16].flatten(1, 2)  # [T, 2 kv heads, head_dim]
    for got, right in ((queries, wanted[:, :heads]), (written, wanted[:, heads:])):
        assert (got.double() - right).norm() / right.norm() < near
    untouched = torch.ones(BLOCKS * 16, dtype=torch.bool)
    untouched[SLOTS] = False
    assert cache.transpose(2, 3).flatten(1, 2)[:, untouched].isnan().all()


def test_norms_of_other_kernels_are_applied_before():
    shape = AttentionShape(2, 1, 16, 1.0)
    qkv = torch.randn(3, 4, 16)
    wanted = qkv.clone()
    norms = HeadNorms(*[reference.prepare(torch.full((16,), 2.0), 1e-6)] * 2)
    norms.apply_(wanted, 2, 1)
    assert fuse_norms(norms, qkv, shape) is None
    assert torch.equal(qkv, wanted)


@pytest.mark.parametrize("kv_dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_8_bits_are_clamped_and_keep_what_is_no_number(kv_dtype):
    qkv = torch.zeros(1, 3, 16)
    qkv[0, 1, :3] = torch.tensor([1e6, -1e6, float("nan")])
    cache = torch.zeros((2, 1, 1, 16, 16), dtype=kv_dtype)
    shape = AttentionShape(1, 1, 16, 1.0)
    store(qkv, torch.tensor([3]), cache, shape=shape, angles=None, norms=None)
    largest = torch.finfo(kv_dtype).max
    got = cache[0, 0, 0, 3].float()
    assert got[:2].tolist() == [largest, -largest]
    assert got[2].isnan()
    assert not got[3:].any()
