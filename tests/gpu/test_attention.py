"""Paged attention in Triton on a GPU, at real sizes: against float64, in a cache full of NaN."""

from dataclasses import replace

import pytest
import torch

from tests.worker.kernels.attending import Attending, assert_near
from worker.kernels.reference.attention import UNSCALED, KVScales
from worker.kernels.triton.attention import TritonAttention

pytestmark = pytest.mark.usefixtures("poisoned_outputs")

GPU = torch.device("cuda")
LLAMA = {"heads": 32, "kv_heads": 8, "head_dim": 128, "dtype": torch.bfloat16}
SHAPES = {
    "llama": LLAMA,
    "llama in float16": LLAMA | {"dtype": torch.float16},
    "llama in float32": LLAMA | {"dtype": torch.float32},
    "9 to 3, 64 wide": {"heads": 9, "kv_heads": 3, "head_dim": 64, "dtype": torch.bfloat16},
    "96 wide": {"heads": 32, "kv_heads": 32, "head_dim": 96, "dtype": torch.bfloat16},
    "256 wide": {"heads": 8, "kv_heads": 4, "head_dim": 256, "dtype": torch.bfloat16},
    "24 wide": {"heads": 4, "kv_heads": 2, "head_dim": 24, "dtype": torch.float32},
    "64 to 1": {"heads": 64, "kv_heads": 1, "head_dim": 128, "dtype": torch.bfloat16},
}
AWKWARD = [0, 15, 16, 63, 64, 65, 447, 448, 449, 1023, 1024, 4097]
"""Tokens before the decoded one: around blocks, tiles and splits."""


def attending(prefixes, counts, decoding, **options):
    return Attending(prefixes, counts, decoding, device="cuda", **options)


def kernel(step):
    return TritonAttention(step.shape, device=GPU, dtype=step.dtype)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))
@pytest.mark.parametrize("sequences", [1, 12, 96])
def test_decoding(shape, sequences):
    prefixes = (AWKWARD * 8)[-sequences:]
    step = attending(prefixes, [1] * sequences, sequences, **shape)
    step.check(kernel(step))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))
def test_prompts_beside_decoding(shape):
    prefixes, counts = [1000, 7, 0, 0, 16, 1111, 0], [1, 1, 512, 1, 100, 333, 77]
    step = attending(prefixes, counts, 2, **shape)
    step.check(kernel(step))


@pytest.mark.parametrize(("window", "cap"), [(1, None), (100, None), (None, 20.0), (4096, 20.0)])
def test_windows_and_caps(window, cap):
    step = attending([5000, 99, 0, 4000], [1, 1, 300, 200], 2, window=window, cap=cap, **LLAMA)
    step.check(kernel(step))


@pytest.mark.parametrize("count", [1, 33])
@pytest.mark.parametrize("kv_dtype", [torch.bfloat16, torch.float8_e4m3fn])
def test_128k_tokens_of_context(count, kv_dtype):
    step = attending([131_072 - count], [count], int(count == 1), kv_dtype=kv_dtype, **LLAMA)
    step.check(kernel(step))


@pytest.mark.parametrize("kv_dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize("scales", [UNSCALED, KVScales(0.0073, 0.3)])
def test_a_cache_of_8_bits(kv_dtype, scales):
    made = LLAMA | {"kv_dtype": kv_dtype, "scales": scales}
    step = attending([1000, 63, 0, 16], [1, 1, 130, 40], 2, **made)
    step.check(kernel(step))


def test_nothing_waits_for_the_device(no_synchronisation):
    step = attending([1000, 63, 0, 16], [1, 1, 130, 40], 2, **LLAMA)
    attention = kernel(step)
    step.check(attention)  # compiles
    with no_synchronisation:
        (plan,) = attention.plans(step.inputs, step.blocks)
        attention.attend(step.qkv, step.cache, plan)


@torch.inference_mode()
def test_a_step_is_captured_once_and_replayed_for_other_lengths():
    """The graph reads lengths, tables, slots and rows from the device when it is replayed.

    In inference mode, as an engine's graphs are: of those that another test has left, torch keeps
    numbers that no capture outside of it may change.
    """
    first = attending([3] * 8, [1] * 8, 8, spare=80, **LLAMA)
    attention = kernel(first)
    longest = replace(first.inputs, lengths_host=(1 << 17,) * 8)
    qkv = first.qkv.clone()
    second = attending([1, 40, 300, 1000, 64, 63, 65, 500], [1] * 8, 8, **LLAMA)
    cache = torch.full_like(second.cache, float("nan"))

    def run():
        (plan,) = attention.plans(longest, second.blocks)
        return attention.attend(qkv, cache, plan)

    run()  # compiles; what it reads is not written yet
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = run()
    cache.copy_(second.cache)
    qkv.copy_(second.qkv)
    first.inputs.slots.copy_(second.inputs.slots)
    first.inputs.lengths.copy_(second.inputs.lengths)
    first.inputs.block_tables[:, : second.tables.shape[1]].copy_(second.tables)
    output.fill_(float("nan"))
    graph.replay()
    assert_near(output, second.wanted)
