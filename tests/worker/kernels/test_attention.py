"""Paged attention against attention written out, sequence by sequence."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.worker.kernels.history import KV_HEADS, History
from worker.kernels.reference import attention as kernel
from worker.kernels.reference import planning


def test_decoding_sequences_of_one_length():
    plan = History([31] * 5, [1] * 5, 5).check()
    assert len(plan.groups) == 1


@pytest.mark.parametrize("prefix", [1, 14, 15, 16, 17, 31, 32, 33])
def test_decoding_around_a_block_boundary(prefix):
    History([prefix, 40], [1, 1], 2).check()


def test_one_long_sequence_is_padded_alone():
    prefixes = [20, 700, 30, 25, 40, 31]
    plan = History(prefixes, [1] * 6, 6).check()
    assert [group.sequences.tolist() for group in plan.groups] == [[1], [4, 0, 2, 3, 5]]


def test_groups_stay_within_their_bytes(monkeypatch):
    monkeypatch.setattr(planning, "_GROUP_BYTES", 6 * 16 * 2 * KV_HEADS * 16 * 4)
    plan = History([40, 42, 44, 40, 33, 35, 36], [1] * 7, 7).check()
    assert [len(group.sequences) for group in plan.groups] == [2, 2, 2, 1]


def test_prompts_with_and_without_a_prefix():
    History([0, 16, 5, 0, 100, 0], [1, 16, 40, 33, 1, 15], 0).check()


def test_a_long_chunk_behind_a_prefix_is_masked_piece_by_piece():
    History([37], [2 * kernel._MASKED_QUERIES + 9], 0).check()


def test_decoding_and_prompts_together():
    History([20, 300, 47, 16, 0], [1, 1, 1, 70, 20], 3).check()


@pytest.mark.parametrize("window", [1, 2, 15, 16, 17, 31, 40, 1000])
def test_a_sliding_window(window):
    prefixes, counts = [20, 300, 47, 3, 16, 100, 0, 0], [1, 1, 1, 1, 70, 20, 40, 9]
    History(prefixes, counts, 4, window=window).check()
    History([31] * 5, [1] * 5, 5, window=window).check()


def test_a_window_in_a_long_chunk():
    count = 2 * kernel._MASKED_QUERIES + 9
    History([37, 0], [count, count], 0, window=100).check()


def test_only_the_blocks_of_the_window_are_read():
    plan = History([1000, 1000], [1, 1], 2, window=33).check()
    assert plan.groups[0].mask.shape[-1] == 48
    plan = History([1000], [5], 0, window=33).check()
    assert len(plan.chunks[0].gather) == 2 * KV_HEADS * 3


@pytest.mark.parametrize("window", [None, 20])
def test_capped_scores(window):
    prefixes, counts = [20, 300, 47, 16, 0], [1, 1, 1, 70, kernel._MASKED_QUERIES + 3]
    History(prefixes, counts, 3, window=window, cap=0.5).check()


def test_windows_share_a_plan_while_they_see_everything():
    history = History([20, 16, 0], [1, 30, 8], 1)
    windows = (None, 46, 45)
    whole, same, other = history.attention.plans(history.inputs, history.blocks, windows)
    assert whole is same
    assert other is not whole
    assert other.store is whole.store


@given(st.lists(st.integers(1, 5000), max_size=60))
def test_groups_hold_every_sequence_once(lengths):
    groups = list(planning._similar(tuple(lengths), 1536))
    if groups == [None]:
        return
    members = [number for group in groups for number in group]
    assert sorted(members) == list(range(len(lengths)))
    for group in groups:
        widths = [-(-lengths[number] // 16) for number in group]
        waste = max(widths) * len(widths) - sum(widths)
        assert waste <= 8 + sum(widths) // 4


@pytest.mark.parametrize("window", [None, 20])
def test_a_cache_in_bfloat16(window):
    shape = {"window": window, "kv_dtype": torch.bfloat16}
    History([20, 47, 0], [1, 1, 30], 2, **shape).check()
    History([0, 40], [30, 1], 0, **shape).check()


@pytest.mark.parametrize("kv_dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize("window", [None, 20])
def test_a_cache_of_8_bits(kv_dtype, window):
    history = History([20, 47, 0], [1, 1, 30], 2, dtype=torch.bfloat16, window=window)
    exact = history.wanted
    generator = torch.Generator().manual_seed(1)
    bits = torch.randint(0, 256, history.cache.shape, generator=generator, dtype=torch.uint8)
    narrow = history.cache.to(kv_dtype)
    narrow.view(torch.uint8).copy_(
        torch.where(history.cache.isnan(), bits, narrow.view(torch.uint8))
    )
    (plan,) = history.attention.plans(history.inputs, history.blocks, (window,))
    got = history.attention.attend(history.qkv, narrow, plan)
    near = 0.05 if kv_dtype == torch.float8_e4m3fn else 0.1
    assert got.dtype == torch.bfloat16
    assert (got.double() - exact).norm() / exact.norm() < near
