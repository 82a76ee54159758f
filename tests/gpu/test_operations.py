"""The other Triton kernels on a GPU, at real sizes: against the reference in float64."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from tests.worker.kernels.coded import coded
from worker import filters as reference_filters
from worker.kernels.low_rank import LowRank
from worker.kernels.mixture import Expert, Routing, holding
from worker.kernels.reference import draw as reference_draw
from worker.kernels.reference import gather as reference_gather
from worker.kernels.reference import linear as reference_linear
from worker.kernels.reference import norm as reference_norm
from worker.kernels.reference import penalties as reference_penalties
from worker.kernels.reference.activation import silu_and_multiply as reference_silu
from worker.kernels.reference.attention import AttentionShape
from worker.kernels.reference.gather import DecodeRows
from worker.kernels.reference.mixture import OneByOne
from worker.kernels.reference.norm import HeadNorms
from worker.kernels.reference.penalties import Penalties
from worker.kernels.reference.quantized import Coding
from worker.kernels.reference.rotary import rotate_
from worker.kernels.triton import draw, filters, penalties
from worker.kernels.triton.activation import silu_and_multiply
from worker.kernels.triton.attention import fuse_norms
from worker.kernels.triton.gather import gather_inputs
from worker.kernels.triton.linear import MOST_ROWS, FewOrMany, Trials, in_turn_ms, multiply
from worker.kernels.triton.low_rank import TritonLowRank
from worker.kernels.triton.mixture import Together, mix
from worker.kernels.triton.norm import prepare_norm
from worker.kernels.triton.quantized import pack_codes
from worker.kernels.triton.store import store
from worker.quantization.at_load import NF4
from worker.transfers import CudaTransfers

pytestmark = pytest.mark.usefixtures("poisoned_outputs")

NEAR = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 4e-3}
VOCABULARY = 128_256


@pytest.fixture(autouse=True)
def _on_gpu():
    torch.manual_seed(0)
    torch.set_default_device("cuda")
    yield
    torch.set_default_device(None)


def assert_near(got, wanted):
    assert got.shape == wanted.shape
    assert (got.double() - wanted).norm() / wanted.norm() < NEAR[got.dtype]


@pytest.mark.parametrize("dtype", list(NEAR))
@pytest.mark.parametrize(("tokens", "size"), [(1, 4096), (8192, 576), (512, 16384), (300, 5120)])
def test_norm(dtype, tokens, size):
    x, residual = torch.randn(2, tokens, size).to(dtype)
    weight = (torch.rand(size) + 0.5).to(dtype)
    operations = prepare_norm(weight, 1e-5)
    exact = reference_norm.prepare(weight.double(), 1e-5)
    assert_near(operations.norm(x), exact.norm(x.double()))
    total = residual + x
    assert_near(operations.add_norm(x, residual), exact.norm(total.double()))
    assert torch.equal(residual, total)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("dtype", list(NEAR))
@pytest.mark.parametrize(("tokens", "inputs", "outputs"), [(1, 4096, 6144), (700, 576, 1000)])
def test_low_rank(dtype, tokens, inputs, outputs, padded):
    """Ranks below and above what is computed at a time; some rows have no adapter."""
    ranks = (8, 48, 160)
    pairs = [
        LowRank(
            torch.randn(rank, inputs).to(dtype), torch.randn(outputs, rank).to(dtype) * rank**-0.5
        )
        for rank in ranks
    ]
    numbers = np.arange(tokens) % 4 - (tokens > 1)
    x, base = (torch.randn(tokens, inputs) * inputs**-0.5).to(dtype), torch.randn(tokens, outputs)
    y, wanted = base.to(dtype), base.to(dtype).double()
    kernel = TritonLowRank()
    plan = kernel.plan(numbers, x.device)
    if padded:
        laid_out = kernel.lay_out(numbers, kernel.room(tokens, len(pairs)))
        plan = kernel.laid_out(torch.from_numpy(laid_out).to(x.device), tokens)
    kernel.pack(pairs)(y, x, plan)
    for number, pair in enumerate(pairs):
        rows = torch.from_numpy(np.flatnonzero(numbers == number)).cuda()
        wanted[rows] += x[rows].double() @ pair.down.double().T @ pair.up.double().T
    assert_near(y, wanted)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("outputs", "inputs"), [(6144, 4096), (4096, 14336), (1000, 576)])
def test_linear_of_few_rows(dtype, outputs, inputs):
    weight, bias = (torch.randn(outputs, inputs) * inputs**-0.5).to(dtype), torch.randn(outputs)
    for rows in (1, 5, MOST_ROWS):
        x = torch.randn(rows, inputs).to(dtype)
        wanted = x.double() @ weight.double().T + bias.to(dtype).double()
        assert_near(multiply(weight, bias.to(dtype), x), wanted)
        assert_near(multiply(weight, bias.to(dtype), x, gated=True), reference_silu(wanted))
        assert_near(multiply(weight, bias.to(dtype), x, dtype=torch.float32), wanted)


def test_trials_are_made_of_real_launches():
    """What is chosen is this GPU's business; both ways give the same, and one of them is taken."""
    trials = Trials(partial(in_turn_ms, CudaTransfers(torch.empty(0).device)))
    x = torch.randn(MOST_ROWS, 4096).to(torch.bfloat16)
    weight = (torch.randn(4096, 4096) * 4096**-0.5).to(torch.bfloat16)
    layers = [pack(weight, None) for pack in (trials.pack, trials.pack_wide, trials.pack_silu)]
    before = [layer(x).double() for layer in layers]
    trials.settle()
    for layer, wanted in zip(layers, before, strict=True):
        assert isinstance(layer, FewOrMany)
        assert len(layer.taken) == MOST_ROWS + 1
        layer.taken[:] = [True] * len(layer.taken)
        assert (layer(x).double() - wanted).norm() / wanted.norm() < 8e-3


@pytest.mark.parametrize("coding", list(Coding), ids=lambda coding: coding.name)
@pytest.mark.parametrize(
    ("dtype", "rows"),
    [(torch.bfloat16, 1), (torch.bfloat16, 20), (torch.bfloat16, 700), (torch.float16, 5),
     (torch.float32, 33)],
)  # fmt: skip
def test_codes(coding, dtype, rows):
    with torch.device("cpu"):
        drawn = coded(coding, 1000, 4096, 128, offsets=coding is Coding.NIBBLE)
    weight = drawn.copied(torch.empty(0).device)
    bias, x = torch.randn(1000).to(dtype), torch.randn(rows, 4096).to(dtype)
    wanted = x.double() @ weight.dequantized(torch.float64).T + bias.double()
    assert_near(pack_codes(weight, bias)(x), wanted)


@pytest.mark.parametrize("coding", [None, *Coding], ids=lambda coding: coding and coding.name)
@pytest.mark.parametrize("tokens", [1, 40, 1000, 6000])
def test_experts(coding, tokens):
    """Every size of tiles; some experts have no token. Rounded between their layers."""
    hidden, width, count, routing = 1024, 512, 32, Routing(4, normalized=True)
    pack = holding(reference_linear.pack)
    weights = [
        [drawn_weight(coding, *shape, seed) for shape in ((2 * width, hidden), (hidden, width))]
        for seed in range(count)
    ]
    experts, exact = [], []
    for first, second in weights:
        gated = reference_linear.activated(pack, silu_and_multiply)
        experts.append(Expert(gated(first, None), pack(second, None)))
        gated = reference_linear.activated(pack, reference_silu)
        wide = [exact_of(weight) for weight in (first, second)]
        exact.append(Expert(gated(wide[0], None), pack(wide[1], None)))
    x, logits = torch.randn(tokens, hidden).to(torch.bfloat16), torch.randn(tokens, count)
    mixed = mix(experts, routing)
    assert isinstance(mixed, Together)
    wanted = OneByOne(exact, routing)(x.double(), logits)
    assert (mixed(x, logits).double() - wanted).norm() / wanted.norm() < 1e-2


def drawn_weight(coding, outputs, inputs, seed):
    if coding is None:
        return (torch.randn(outputs, inputs) * inputs**-0.5).to(torch.bfloat16)
    with torch.device("cpu"):
        drawn = coded(coding, outputs, inputs, 128, seed=seed)
    levels = None if drawn.levels is None else torch.tensor(NF4)
    return replace(drawn, levels=levels).copied(torch.empty(0).device)


def exact_of(weight):
    if isinstance(weight, torch.Tensor):
        return weight.double()
    return weight.dequantized(torch.float64)


@pytest.mark.parametrize("dtype", list(NEAR))
@pytest.mark.parametrize(("tokens", "width"), [(1, 14336), (4096, 1536), (33, 1000)])
def test_gated_silu(dtype, tokens, width):
    both = (torch.randn(tokens, 2 * width) * 3).to(dtype)
    assert_near(silu_and_multiply(both), reference_silu(both.double()))


@pytest.mark.parametrize("dtype", list(NEAR))
@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize(
    ("heads", "kv_heads", "head_dim"), [(32, 8, 128), (9, 3, 64), (32, 32, 96)]
)
def test_store(dtype, normed, heads, kv_heads, head_dim):
    tokens, blocks = 1000, 80
    shape = AttentionShape(heads, kv_heads, head_dim, 1.0)
    qkv = torch.randn(tokens, heads + 2 * kv_heads, head_dim).to(dtype)
    slots = torch.randperm(blocks * 16)[:tokens]
    angle = torch.rand(tokens, 1, head_dim // 2) * 6
    cosines = torch.cat((angle.cos(), angle.cos()), -1).to(dtype)
    sines = torch.cat((-angle.sin(), angle.sin()), -1).to(dtype)
    weights = [(torch.rand(head_dim) + 0.5).to(dtype) for _ in range(2)]
    norms = HeadNorms(*[prepare_norm(weight, 1e-5) for weight in weights]) if normed else None
    cache = torch.full((2, blocks, kv_heads, 16, head_dim), float("nan"), dtype=dtype)
    wanted = qkv.double()
    fused = fuse_norms(norms, qkv, shape)
    queries = store(qkv, slots, cache, shape=shape, angles=(cosines, sines), norms=fused)
    if normed:
        exact = [reference_norm.prepare(weight.double(), 1e-5) for weight in weights]
        HeadNorms(*exact).apply_(wanted, heads, kv_heads)
    rotate_(wanted[:, : heads + kv_heads], cosines.double(), sines.double())
    assert_near(queries, wanted[:, :heads])
    written = cache[:, slots // 16, :, slots % 16].flatten(1, 2)
    assert_near(written, wanted[:, heads:])
    assert cache.isnan().sum() == cache.numel() - 2 * tokens * kv_heads * head_dim


@pytest.mark.parametrize("rows", [1, 7, 256])
def test_draw(rows):
    logits = torch.randn(rows, VOCABULARY) * 4
    temperature = torch.tensor([0.0, 1.0, 0.3, 2.0] * 64)[:rows]
    seeds = torch.randint(-(2**62), 2**62, (rows,))
    positions = torch.randint(0, 10_000, (rows,))
    ids, logprobs = draw.draw(logits, temperature, seeds, positions)
    wanted_ids, wanted = reference_draw.draw(logits, temperature, seeds, positions)
    # Times that are equal but for rounding may be ordered otherwise: not in two rows of these.
    assert (ids != wanted_ids).sum() <= 1
    same = ids == wanted_ids
    torch.testing.assert_close(logprobs[same], wanted[same], atol=1e-4, rtol=1e-5)
    cpu_ids, _ = reference_draw.draw(*[t.cpu() for t in (logits, temperature, seeds, positions)])
    assert (ids.cpu() != cpu_ids).sum() <= 1
    greedy = temperature == 0
    assert torch.equal(ids[greedy], logits[greedy].argmax(-1))


@pytest.mark.parametrize("rows", [1, 64])
def test_penalties(rows):
    logits = torch.randn(2 * rows, VOCABULARY)[: rows if rows == 1 else None] * 4
    asked = Penalties(
        rows=None if rows == 1 else torch.randperm(2 * rows)[:rows],
        repetition=torch.rand(rows) + 0.5,
        frequency=torch.rand(rows),
        output_frequency=torch.rand(rows),
        output_presence=torch.rand(rows),
        seen_rows=torch.randint(-1, 5, (rows,)),
        output_rows=torch.randint(-1, 5, (rows,)),
    )
    seen, output = torch.randint(0, 3, (2, 5, VOCABULARY)).int()
    lengths = torch.randint(1, 4000, (len(logits),))
    # Without counts of its own, a row asks for nothing.
    wanted = logits.clone()
    penalties.penalize_(logits, asked, seen, output, lengths)
    reference_penalties.penalize_(wanted, asked, seen, output, lengths)
    torch.testing.assert_close(logits, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("rows", [1, 7, 256])
@pytest.mark.parametrize("levels", [40, 100_000])
def test_nucleus(rows, levels):
    logits = (torch.randn(rows, VOCABULARY) * levels / 3).round() / levels * 9
    p = torch.tensor([0.9, 0.3, 0.999, 0.01] * 64)[:rows]
    wanted = reference_filters.top_p_unseen(logits.clone(), p)
    got = filters.top_p(logits.clone(), p)
    differ = got != wanted
    # At the cut the two sums round differently, by more tokens the flatter a row is there.
    assert torch.softmax(logits, -1)[differ].sum() < 1e-3 * rows
    assert torch.equal(filters.top_p(logits[:1].clone(), p[:1]), got[:1])


@pytest.mark.parametrize("rows", [1, 7, 256])
def test_the_k_largest(rows):
    logits = (torch.randn(rows, VOCABULARY) * 40).round() / 10
    k = torch.randint(1, 1000, (rows,))
    wanted = reference_filters.top_k(logits.clone(), k, 1000)
    assert torch.equal(filters.top_k(logits.clone(), k, 1000), wanted)


@pytest.mark.parametrize("count", [1, 256, 300])
def test_inputs_of_a_step(count):
    drafts = torch.randint(1 << 40, (count,))
    rows = DecodeRows(torch.randint(9, (count,)), torch.randint(3, (count,)), drafts)
    last_tokens, lengths = torch.randint(1 << 40, (9,)), torch.randint(1, 131_072, (9,))
    tables = torch.randint(1 << 31, (9, 8192))
    got = gather_inputs(rows, last_tokens, lengths, tables)
    twin = reference_gather.gather_inputs(rows, last_tokens, lengths, tables)
    for name in ("ids", "positions", "slots", "lengths"):
        assert torch.equal(getattr(got, name), getattr(twin, name))
