"""Paged attention in Triton, in its interpreter: against float64, in a cache full of NaN."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from tests.worker.kernels.attending import Attending, assert_near
from worker.kernels.reference.attention import (
    UNSCALED,
    AttentionShape,
    KVScales,
    PagedAttention,
)
from worker.kernels.triton import decode
from worker.kernels.triton.attention import TritonAttention
from worker.kernels.triton.decode import Splitting, attend_decoding, choose_splitting, make_parts
from worker.kernels.triton.online import STAGES

CPU = torch.device("cpu")
SHAPES = {
    "9 to 3, 64 wide": {"heads": 9, "kv_heads": 3, "head_dim": 64, "dtype": torch.float32},
    "8 to 1, 96 wide": {"heads": 8, "kv_heads": 1, "head_dim": 96, "dtype": torch.bfloat16},
    "alone, 128 wide": {"heads": 2, "kv_heads": 2, "head_dim": 128, "dtype": torch.bfloat16},
    "20 to 1, 16 wide": {"heads": 20, "kv_heads": 1, "head_dim": 16, "dtype": torch.float32},
}


@pytest.fixture(autouse=True)
def _few_splits(monkeypatch):
    """Each program takes the interpreter milliseconds."""
    monkeypatch.setattr(decode, "_MOST_SPLITS", 4)


def kernel(step):
    return TritonAttention(step.shape, device=CPU, dtype=step.dtype, sinks=step.sinks)


def test_new_memory_is_poisoned():
    assert torch.zeros(3).new_empty(4).isnan().all()


@pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))
def test_decoding_and_prompts_together(shape):
    step = Attending([0, 15, 64, 20, 0, 33], [1, 1, 1, 9, 3, 1], 3, **shape)
    step.check(kernel(step))


@pytest.mark.parametrize(
    ("window", "cap", "dtype"),
    [
        (1, None, torch.bfloat16),
        (17, None, torch.float32),
        (None, 2.0, torch.bfloat16),
        (40, 2.0, torch.float32),
    ],
)
def test_windows_and_caps(window, cap, dtype):
    step = Attending(
        [70, 16, 33], [1, 1, 9], 2, window=window, cap=cap, dtype=dtype, kv_heads=1, head_dim=32
    )
    step.check(kernel(step))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("window", [None, 17])
@pytest.mark.parametrize("splits", [1, 4])
def test_sinks(splits, window, dtype, monkeypatch):
    """One that outweighs all scores, one that weighs nothing, and others."""
    monkeypatch.setattr(decode, "_MOST_SPLITS", splits)
    sinks = torch.tensor([1.5, -60.0, 200.0, 0.0])
    step = Attending(
        [70, 16, 33], [1, 1, 9], 2, window=window, dtype=dtype, head_dim=32, sinks=sinks
    )
    got = step.check(kernel(step))
    assert not got.view(-1, 4, 32)[:, 2].any()


def test_sinks_of_a_sequence_without_tokens():
    step = Attending([30, 20], [1, 1], 2)
    got = torch.empty(2, 4 * 64)
    for splitting in (Splitting(1, 1), Splitting(2, 1)):
        attend_decoding(
            step.qkv[:, :4], step.cache, step.tables, torch.zeros(2, dtype=torch.int32),
            got.fill_(torch.nan), shape=step.shape, window=0, splitting=splitting,
            parts=make_parts(2, step.shape, splitting, CPU), sinks=torch.randn(4),
        )  # fmt: skip
        assert torch.equal(got, torch.zeros_like(got))


@pytest.mark.parametrize(("length", "window"), [(1, 0), (64, 0), (65, 0), (97, 0), (97, 20)])
def test_lengths_around_the_ends_of_splits(length, window):
    """Four splits of at least one tile of 16 keys: 97 keys are 2 + 2 + 2 + 1 tiles."""
    step = Attending([length - 1, 5], [1, 1], 2, kv_heads=1, window=window or None, head_dim=16)
    plan = Splitting(4, 1)
    attention = kernel(step)
    (planned,) = attention.plans(step.inputs, step.blocks, (step.window,))
    parts = make_parts(2, step.shape, plan, CPU)
    got = attention.attend(step.qkv, step.cache, replace(planned, splitting=plan, parts=parts))
    assert_near(got, step.wanted)


@pytest.mark.parametrize(
    ("length", "wanted"),
    [(160, [80, 80, 0, 0]), (128, [128, 0, 0, 0]), (130, [80, 50, 0, 0]), (640, [160] * 4)],
)
def test_splits_that_have_work_have_the_same(length, wanted):
    """At least eight tiles of 16 keys; ten are 5 + 5, not 8 + 2. A key of zeros counts one."""
    shape, splitting = AttentionShape(1, 1, 16, 1.0), Splitting(4, 8)
    parts = make_parts(1, shape, splitting, CPU)
    attend_decoding(
        torch.zeros(1, 1, 16), torch.zeros(2, 41, 1, 16, 16), torch.arange(1, 41)[None],
        torch.tensor([length]), torch.empty(1, 16), shape=shape, window=0, splitting=splitting,
        parts=parts,
    )  # fmt: skip
    assert parts.logs.exp2().flatten().tolist() == pytest.approx(wanted)


def test_a_sequence_without_tokens_yields_zeros():
    step = Attending([30, 20], [1, 1], 2)
    got = torch.full((2, 4 * 64), float("nan"))
    for splitting in (Splitting(1, 1), Splitting(2, 1)):
        attend_decoding(
            step.qkv[:, :4], step.cache, step.tables.int(), torch.zeros(2, dtype=torch.int32), got,
            shape=step.shape, window=0, splitting=splitting,
            parts=make_parts(2, step.shape, splitting, CPU),
        )  # fmt: skip
        assert torch.equal(got, torch.zeros_like(got))
        got.fill_(float("nan"))


def test_plans_of_decoding_look_at_nothing_on_the_host():
    step = Attending([30, 20], [1, 1], 2)
    unknown = replace(step.inputs, lengths_host=(1 << 30, 1 << 30))
    attention = kernel(step)
    wanted = step.check(attention)
    (plan,) = attention.plans(unknown, step.blocks)
    assert torch.equal(attention.attend(step.qkv, step.cache, plan), wanted)


def test_windows_of_a_step_share_what_they_can():
    step = Attending([30, 20], [1, 9], 1)
    whole, windowed = kernel(step).plans(step.inputs, step.blocks, (None, 5))
    assert windowed == replace(whole, window=5)
    assert windowed.tiles is whole.tiles


@pytest.mark.parametrize("window", [20, 90])
def test_a_window_leaves_a_middle_that_all_rows_see(window):
    """Keys by 64: begins, whole tiles and ends of windows that lie before, in and behind a tile."""
    made = {"heads": 1, "kv_heads": 1, "head_dim": 16, "dtype": torch.bfloat16, "window": window}
    step = Attending([200, 0], [9, 70], 0, **made)
    step.check(kernel(step))


def test_a_long_prompt_in_tiles():
    step = Attending([21], [75], 0, heads=4, kv_heads=1, head_dim=32, dtype=torch.bfloat16)
    attention = kernel(step)
    (plan,) = attention.plans(step.inputs, step.blocks)
    assert plan.tiles.tolist() == [[0, 64, 11, 85], [0, 32, 32, 53], [0, 0, 32, 21]]
    step.check(attention)


@pytest.mark.parametrize(
    ("dtype", "kv_dtype", "scales"),
    [
        (torch.float32, torch.float8_e5m2, UNSCALED),
        (torch.bfloat16, torch.float8_e4m3fn, UNSCALED),
        (torch.bfloat16, torch.float8_e4m3fn, KVScales(0.0073, 0.3)),
        (torch.float32, torch.float8_e4m3fn, KVScales(3.1, 0.0021)),  # values are clamped
    ],
)
@pytest.mark.parametrize("cap", [None, 2.0])
def test_a_cache_of_8_bits(dtype, kv_dtype, scales, cap):
    made = {"dtype": dtype, "kv_dtype": kv_dtype, "kv_heads": 1, "head_dim": 32, "scales": scales}
    made["cap"] = cap
    step = Attending([40, 16, 0], [1, 9, 12], 1, **made)
    step.check(kernel(step))
    again = Attending([40, 16, 0], [1, 9, 12], 1, **made)
    # The reference clears blocks when they are entered, which here was in an earlier step.
    again.cache.view(torch.uint8)[again.cache.float().isnan()] = 0
    again.check(PagedAttention(again.shape, device=CPU, dtype=dtype))
    written = ~step.cache.float().isnan()
    assert (step.cache.view(torch.uint8) == again.cache.view(torch.uint8))[written].all()
    assert not again.cache.float()[~written].any()


def test_splitting_depends_on_the_number_of_sequences():
    assert decode.choose_splitting(0, 8, 132) == choose_splitting(1, 1, 132)
    assert choose_splitting(1, 8, 132) == Splitting(4, 1)
    assert choose_splitting(33, 8, 132) == Splitting(4, 8)
    assert choose_splitting(100, 8, 132) == Splitting(2, 8)
    assert choose_splitting(256, 8, 132) == choose_splitting(5000, 8, 132) == Splitting(1, 8)


@pytest.mark.parametrize(
    ("head_dim", "shared_bytes", "stages"),
    [(256, 227 << 10, STAGES), (256, 163 << 10, STAGES), (256, 99 << 10, STAGES - 1),
     (128, 99 << 10, STAGES)],
)  # fmt: skip
def test_tiles_fit_into_what_a_block_may_share(head_dim, shared_bytes, stages, monkeypatch):
    properties = SimpleNamespace(
        multi_processor_count=58, shared_memory_per_block_optin=shared_bytes
    )
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    asked = []
    monkeypatch.setattr(
        "worker.kernels.triton.attention.attend_chunks",
        lambda *given, stages, **named: asked.append(stages),
    )
    step = Attending([0], [20], 0, head_dim=head_dim)
    gpu = TritonAttention(step.shape, device=torch.device("cuda"), dtype=torch.bfloat16)
    (plan,) = gpu.plans(step.inputs, step.blocks)
    gpu.attend(step.qkv, step.cache, plan)
    assert asked == [stages]


def test_what_it_fits():
    shape = AttentionShape(4, 2, 256, 1.0)
    assert TritonAttention.fits(shape, torch.float16)
    assert not TritonAttention.fits(replace(shape, head_dim=512), torch.float16)
    assert not TritonAttention.fits(shape, torch.float64)
    assert not TritonAttention.fits(replace(shape, scale=-1.0), torch.float16)
