"""Paged attention in C: the reference's cases, other shapes, and a comparison of rotations."""

from functools import partial

import pytest
import torch

from tests.worker.kernels.history import History
from worker.kernels.cpu.attention import NativeAttention
from worker.kernels.reference.attention import AttentionShape, PagedAttention
from worker.kernels.select import Choices, select
from worker.kernels.stack import keep_layers

SHAPES = {
    "one head": (1, 1, 16),
    "all heads their own": (4, 4, 32),
    "three to one": (6, 2, 64),
    "five to one, odd lanes": (10, 2, 48),
    "eight to one": (8, 1, 128),
    "more than a tile to one": (21, 1, 80),
    "wide": (2, 1, 256),
    "small heads": (12, 4, 32),
    "three tiles deep": (3, 1, 96),
}


@pytest.fixture
def history(library):
    return partial(History, make=partial(NativeAttention, library))


@pytest.fixture
def narrow(library):
    """In float32, over keys and values kept in bfloat16."""
    make = partial(NativeAttention, library, kv_dtype=torch.bfloat16)
    return partial(History, make=make, kv_dtype=torch.bfloat16)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))
def test_every_shape_decoding_and_reading(history, shape, dtype):
    heads, kv_heads, head_dim = shape
    history(
        [20, 300, 47, 16, 0, 15], [1, 1, 1, 70, 20, 2], 3,
        heads=heads, kv_heads=kv_heads, head_dim=head_dim, dtype=dtype,
    ).check()  # fmt: skip


@pytest.mark.parametrize("prefix", [0, 1, 14, 15, 16, 17, 31, 32, 33, 63, 64, 65])
def test_around_block_boundaries(history, prefix):
    history([prefix, 40], [1, 1], 2 if prefix else 0).check()
    history([prefix, prefix], [16, 17], 0).check()


@pytest.mark.parametrize("prefix", [1022, 1023, 1024, 2047, 2500])
def test_long_sequences_are_cut_and_merged(history, prefix, dtype):
    plan = history([prefix, 5, prefix // 2], [1, 1, 1], 3, dtype=dtype).check()
    assert plan.step.num_merges == (1 if prefix >= 1024 else 0) + (1 if prefix >= 2048 else 0)


@pytest.mark.parametrize("prefix", [0, 5, 300])
def test_long_prompts(history, prefix, dtype):
    """Several tiles and groups of keys."""
    history([prefix, 3], [300, 40], 0, heads=6, head_dim=64, dtype=dtype).check()


@pytest.mark.parametrize("rising", [0.01, 0.05])
def test_maxima_that_are_raised_again_and_again(bfloat16, rising):
    make = partial(NativeAttention, bfloat16)
    shape = {"heads": 6, "head_dim": 64, "dtype": torch.bfloat16, "make": make}
    History([0, 120], [300, 200], 0, rising=rising, **shape).check()


@pytest.mark.parametrize("window", [100, 140])
def test_windows_over_several_tiles(history, window, dtype):
    history([0, 217], [300, 130], 0, window=window, head_dim=32, dtype=dtype).check()


@pytest.mark.parametrize("prefix", [1023, 1500])
def test_many_heads_to_one_decode_in_parts(history, prefix, dtype):
    """By tiles, where there are such."""
    shape = {"heads": 18, "kv_heads": 1, "head_dim": 64, "dtype": dtype}
    history([prefix, 40], [1, 1], 2, **shape).check()


@pytest.mark.parametrize("window", [1, 2, 15, 16, 17, 31, 40, 1000])
@pytest.mark.parametrize("cap", [None, 0.5])
def test_windows_and_caps(history, window, cap):
    prefixes, counts = [20, 300, 47, 3, 16, 100, 0, 0], [1, 1, 1, 1, 70, 20, 40, 9]
    history(prefixes, counts, 4, window=window, cap=cap).check()
    history([31, 1500], [1, 1], 2, window=window, cap=cap).check()


@pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))
def test_every_shape_over_a_narrow_cache(narrow, shape):
    heads, kv_heads, head_dim = shape
    narrow(
        [20, 300, 47, 16, 0, 15], [1, 1, 1, 70, 20, 2], 3,
        heads=heads, kv_heads=kv_heads, head_dim=head_dim,
    ).check()  # fmt: skip


@pytest.mark.parametrize("prefix", [0, 1, 15, 16, 17, 31, 32, 33, 65])
def test_block_boundaries_of_a_narrow_cache(narrow, prefix):
    narrow([prefix, 40], [1, 1], 2 if prefix else 0).check()
    narrow([prefix, prefix], [16, 17], 0).check()


def test_long_sequences_over_a_narrow_cache(narrow):
    narrow([2500, 5, 1200], [1, 1, 1], 3, window=1100, cap=0.5).check()
    narrow([300, 3], [300, 40], 0, heads=6, head_dim=64, window=140).check()


def test_a_result_does_not_depend_on_the_batch(history):
    alone = history([1500], [1], 1, seed=3)
    together = history([1500, 40, 700], [1, 1, 1], 3, seed=3)
    results = []
    for case in (alone, together):
        (plan,) = case.attention.plans(case.inputs, case.blocks)
        results.append(case.attention.attend(case.qkv, case.cache, plan)[0])
    assert torch.equal(*results)


@pytest.mark.parametrize("channels", [64, 32, 8])
def test_rotates_as_the_reference_does(library, dtype, channels):
    shape = AttentionShape(6, 2, 64, 0.2)
    rows = torch.randn(5, 10, 64).to(dtype)
    turns = torch.rand(5, 1, channels // 2) * 6
    cosines = torch.cat((turns.cos(), turns.cos()), -1).to(dtype)
    sines = torch.cat((-turns.sin(), turns.sin()), -1).to(dtype)
    results = []
    reference = PagedAttention(shape, device=torch.device("cpu"), dtype=dtype)
    for attention in (reference, NativeAttention(library, shape, dtype)):
        case = History([0], [5], 0, heads=6, head_dim=64, dtype=dtype)
        (plan,) = attention.plans(case.inputs, case.blocks)
        cache = torch.full_like(case.cache, float("nan"))
        results.append(attention.attend(rows.clone(), cache, plan, (cosines, sines)))
    assert (results[0] - results[1]).abs().max() < (0.03 if dtype == torch.bfloat16 else 1e-5)


def test_other_shapes_stay_with_the_reference():
    assert not NativeAttention.fits(AttentionShape(2, 1, 8, 1.0), torch.float32)
    assert not NativeAttention.fits(AttentionShape(2, 1, 1024, 1.0), torch.float32)
    assert not NativeAttention.fits(AttentionShape(2, 1, 64, 1.0), torch.float16)
    assert not NativeAttention.fits(AttentionShape(2, 1, 64, -1.0), torch.float32)
    assert NativeAttention.fits(AttentionShape(2, 1, 64, 1.0), torch.float32)


def test_a_cache_of_8_bits_stays_with_the_reference(library):
    shape = AttentionShape(2, 1, 64, 1.0)

    def chosen(kv_dtype):
        choices = Choices(kv_dtype=kv_dtype)
        return select(torch.device("cpu"), torch.float32, library, choices=choices)

    assert isinstance(chosen(None).attention(shape), NativeAttention)
    for kv_dtype in (torch.float32, torch.bfloat16):
        own = chosen(kv_dtype)
        assert isinstance(own.attention(shape), NativeAttention)
        assert own.fuse_layers is not keep_layers
    narrow = chosen(torch.float8_e4m3fn)
    assert isinstance(narrow.attention(shape), PagedAttention)
    assert narrow.fuse_layers is keep_layers
