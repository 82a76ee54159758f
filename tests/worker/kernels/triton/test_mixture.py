"""Mixtures of experts in Triton's interpreter, against the reference."""

import itertools
from dataclasses import replace
from functools import partial

import pytest
import torch

from tests.worker.kernels.coded import coded
from worker.kernels.mixture import Expert, Routing, holding
from worker.kernels.reference import linear as reference
from worker.kernels.reference.activation import GATED_ACTIVATIONS, LIMIT, clamp_and_multiply
from worker.kernels.reference.mixture import OneByOne
from worker.kernels.reference.quantized import WHOLE_LEVELS, Coding
from worker.kernels.triton import experts as kernel
from worker.kernels.triton.activation import silu_and_multiply
from worker.kernels.triton.mixture import Together, mix
from worker.kernels.triton.routing import route
from worker.kernels.triton.tiles import most_tiles

NEAR = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}
PACK = holding(reference.pack)
LEVELS = {
    Coding.INTEGER: None,
    Coding.FLOAT8: None,
    Coding.NIBBLE: torch.randn(16, generator=torch.Generator().manual_seed(0)),
}
"""Of all experts."""


def biased(weights):
    """As ``packed``, with biases, and clamped."""
    generator = torch.Generator().manual_seed(3)
    experts = []
    for first, second in weights:
        biases = [torch.randn(len(weight), generator=generator) for weight in (first, second)]
        gated = reference.activated(PACK, clamp_and_multiply)
        experts.append(Expert(gated(10 * first, biases[0]), PACK(second, biases[1])))
    return experts


def drawn(experts, hidden, width, dtype=torch.float32, seed=0):
    """Weights of gates and ups, and of downs."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(experts):
        first = torch.randn(2 * width, hidden, generator=generator) * hidden**-0.5
        second = torch.randn(hidden, width, generator=generator) * width**-0.5
        yield first.to(dtype), second.to(dtype)


def packed(weights, activation=silu_and_multiply, pack=PACK):
    gated = reference.activated(pack, activation)
    return [Expert(gated(first, None), pack(second, None)) for first, second in weights]


def exact(weights, routing):
    """In float64, one by one."""
    silu = GATED_ACTIVATIONS["silu"]
    return OneByOne(packed([(a.double(), b.double()) for a, b in weights], silu), routing)


def relative(found, wanted):
    return (found.double() - wanted.double()).norm() / wanted.double().norm()


@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize(("count", "chosen"), [(4, 2), (5, 1), (8, 8), (60, 6)])
def test_tokens_go_to_the_most_likely_experts(count, chosen, normalized):
    generator = torch.Generator().manual_seed(count)
    logits = torch.randn(37, count, generator=generator)
    weights, order, starts = route(logits, Routing(chosen, normalized))
    likely, experts = logits.softmax(-1).topk(chosen)
    wanted = likely / likely.sum(-1, keepdim=True) if normalized else likely
    assert (weights - wanted).abs().max() < 1e-6
    sizes = experts.flatten().bincount(minlength=count)
    assert starts.tolist() == [0, *sizes.cumsum(0).tolist()]
    assert torch.equal(order.long(), experts.flatten().argsort(stable=True))


def test_more_pairs_than_are_looked_at_together(monkeypatch):
    monkeypatch.setattr("worker.kernels.triton.routing._PAIRS", 16)
    logits = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    _, order, starts = route(logits, Routing(2, True))
    experts = logits.topk(2).indices.flatten()
    assert torch.equal(order.long(), experts.argsort(stable=True))
    assert starts[-1] == 100


def test_of_equally_likely_experts_the_first_is_chosen():
    weights, order, _ = route(torch.zeros(2, 6), Routing(3, normalized=False))
    assert (weights - 1 / 6).abs().max() < 1e-6
    assert order.tolist() == [0, 3, 1, 4, 2, 5]


def test_logits_that_are_no_numbers_choose_experts_that_exist():
    logits = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    logits[1] = torch.nan
    logits[2, 3] = -torch.inf
    weights, order, starts = route(logits, Routing(2, normalized=False))
    assert sorted(order.tolist()) == list(range(6))
    assert starts[-1] == 6
    likely = torch.softmax(logits[[0, 2]], -1).topk(2).values
    assert (weights[[0, 2]] - likely).abs().max() < 1e-6
    assert (weights[1] - 1 / 5).abs().max() < 1e-6


def test_logits_without_end_choose_experts_that_exist():
    """As a router in float16 may make: such an expert is likely, and two of them share."""
    logits = torch.zeros(2, 5)
    logits[0, 3] = logits[1, 1] = logits[1, 4] = torch.inf
    weights, order, starts = route(logits, Routing(2, normalized=True))
    assert weights.tolist() == [[1.0, 0.0], [0.5, 0.5]]
    assert order.tolist() == [1, 2, 0, 3]
    assert starts.tolist() == [0, 1, 2, 2, 3, 4]


@pytest.mark.parametrize("dtype", list(NEAR))
@pytest.mark.parametrize(
    ("tokens", "count", "chosen", "hidden", "width"),
    [(1, 8, 2, 64, 48), (3, 5, 3, 40, 72), (70, 4, 2, 96, 16), (33, 2, 1, 130, 200)],
)
def test_gives_what_experts_give_one_by_one(tokens, count, chosen, hidden, width, dtype):
    """Some experts have no token, some many; neither size need be a multiple of a tile."""
    weights = list(drawn(count, hidden, width, dtype))
    routing = Routing(chosen, normalized=True)
    together = mix(packed(weights), routing)
    assert isinstance(together, Together)
    assert together.capturable
    generator = torch.Generator().manual_seed(tokens)
    x = torch.randn(tokens, hidden, generator=generator).to(dtype)
    logits = torch.randn(tokens, count, generator=generator).to(dtype)
    found = together(x, logits)
    assert found.dtype == dtype
    assert relative(found, exact(weights, routing)(x.double(), logits.double())) < NEAR[dtype]


@pytest.mark.parametrize("offsets", [True, False])
@pytest.mark.parametrize("coding", list(Coding), ids=lambda coding: coding.name)
@pytest.mark.parametrize(
    ("tokens", "hidden", "width", "group"), [(3, 64, 48, 16), (40, 96, 72, 24), (1, 48, 80, 0)]
)
def test_codes_give_what_they_give_one_by_one(tokens, hidden, width, group, coding, offsets):
    """Groups that are short, that the kernel does not take, and that are all inputs."""
    make = partial(coded, coding, offsets=offsets)
    weights = []
    for seed in range(4):
        first = make(2 * width, hidden, group or hidden, seed=seed)
        second = make(hidden, width, group or width, seed=seed + 9)
        weights.append([replace(codes, levels=LEVELS[coding]) for codes in (first, second)])
    routing = Routing(2, normalized=True)
    found, wanted = mix(packed(weights), routing), OneByOne(packed(weights), routing)
    assert isinstance(found, Together) == (group != 24)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(tokens, hidden, generator=generator)
    logits = torch.randn(tokens, 4, generator=generator)
    assert relative(found(x, logits), wanted(x, logits)) < 1e-5


def test_whole_levels():
    routing = Routing(1, normalized=False)
    levels = torch.tensor(WHOLE_LEVELS)
    pair = coded(Coding.NIBBLE, 64, 32, 32), coded(Coding.NIBBLE, 32, 32, 16)
    weights = [[replace(codes, levels=levels) for codes in pair]] * 2
    x, logits = torch.ones(2, 32), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    wanted = OneByOne(packed(weights), routing)(x, logits)
    assert relative(mix(packed(weights), routing)(x, logits), wanted) < 1e-5


def test_codes_of_different_kinds_run_one_by_one():
    routing = Routing(2, normalized=True)
    alike = [[coded(Coding.INTEGER, 64, 32, 32), coded(Coding.INTEGER, 32, 32, 32)]] * 2
    assert isinstance(mix(packed(alike), routing), Together)
    for other in (
        coded(Coding.FLOAT8, 64, 32, 32),
        coded(Coding.INTEGER, 64, 32, 16),
        coded(Coding.INTEGER, 64, 32, 32, offsets=True),
        coded(Coding.INTEGER, 64, 32, 32, order=True),
        torch.zeros(64, 32),
    ):
        for experts in ([alike[0], [other, alike[0][1]]], [[other, alike[0][1]], alike[0]]):
            assert isinstance(mix(packed(experts), routing), OneByOne)


@pytest.mark.parametrize("tile", [0, 1, 2])
def test_every_size_of_tiles(tile, monkeypatch):
    """One expert has all tokens, more than a tile holds."""
    monkeypatch.setitem(kernel._TILES, 2, kernel._TILES[2][tile : tile + 1])
    weights = list(drawn(3, 32, 24, torch.bfloat16))
    routing = Routing(1, normalized=False)
    x = torch.randn(150, 32, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    logits = torch.tensor([0.0, 4.0, 1.0]).expand(150, 3).to(torch.bfloat16)
    wanted = exact(weights, routing)(x.double(), logits.double())
    assert relative(mix(packed(weights), routing)(x, logits), wanted) < NEAR[torch.bfloat16]


def test_a_token_gets_the_same_in_any_company():
    weights = list(drawn(6, 48, 32))
    together = mix(packed(weights), Routing(2, normalized=True))
    generator = torch.Generator().manual_seed(0)
    x, logits = torch.randn(9, 48, generator=generator), torch.randn(9, 6, generator=generator)
    among, alone = together(x, logits), together(x[4:5], logits[4:5])
    assert torch.equal(among[4:5], alone)


def test_rows_need_not_lie_side_by_side_and_there_may_be_none():
    weights = list(drawn(4, 32, 24))
    routing = Routing(2, normalized=True)
    together = mix(packed(weights), routing)
    generator = torch.Generator().manual_seed(0)
    wide, logits = torch.randn(5, 64, generator=generator), torch.randn(5, 4, generator=generator)
    for x in (wide[:, 16:48], wide.T.contiguous().T[:, ::2]):
        assert relative(together(x, logits), exact(weights, routing)(x.double(), logits)) < 1e-5
    assert together(wide[:0, :32], logits[:0]).shape == (0, 32)


def test_tiles_suffice_however_pairs_are_spread():
    for pairs, experts, rows in itertools.product(range(1, 9), (1, 2, 3), (1, 2, 4)):
        spread = [
            sizes
            for sizes in itertools.product(range(pairs + 1), repeat=experts)
            if sum(sizes) == pairs
        ]
        needed = max(sum(-(-size // rows) for size in sizes) for sizes in spread)
        assert most_tiles(pairs, experts, rows) == needed


def test_what_the_kernels_cannot_do_runs_one_by_one():
    weights = list(drawn(3, 32, 24))
    routing = Routing(2, normalized=True)
    others = (
        packed(weights, GATED_ACTIVATIONS["gelu"]),
        packed(weights, pack=reference.pack),
        [*packed(weights[:2]), *packed(weights[2:], pack=reference.pack)],
    )
    for experts in others:
        assert isinstance(mix(experts, routing), OneByOne)


def test_biases_and_gates_that_are_clamped():
    """As gpt-oss has them: some gates and ups are beyond what they are clamped to."""
    weights, routing = list(drawn(5, 40, 24)), Routing(2, normalized=True)
    generator = torch.Generator().manual_seed(0)
    x, logits = torch.randn(9, 40, generator=generator), torch.randn(9, 5, generator=generator)
    experts = biased(weights)
    both = experts[0].first.linear(x)
    assert both.max() > LIMIT
    assert both.min() < -LIMIT
    found = mix(experts, routing)
    assert isinstance(found, Together)
    assert relative(found(x, logits), OneByOne(experts, routing)(x, logits)) < 1e-5


def test_biases_beside_codes():
    routing = Routing(2, normalized=True)
    generator = torch.Generator().manual_seed(0)
    experts = []
    for seed in range(3):
        biases = [torch.randn(size, generator=generator) for size in (64, 48)]
        first, second = (
            coded(Coding.FLOAT8, 64, 48, 16, seed=seed),
            coded(Coding.FLOAT8, 48, 32, 32),
        )
        gated = reference.activated(PACK, clamp_and_multiply)
        experts.append(Expert(gated(first, biases[0]), PACK(second, biases[1])))
    found = mix(experts, routing)
    assert isinstance(found, Together)
    x, logits = torch.randn(4, 48, generator=generator), torch.randn(4, 3, generator=generator)
    assert relative(found(x, logits), OneByOne(experts, routing)(x, logits)) < 1e-5


def test_biases_of_some_experts_run_one_by_one():
    weights, routing = list(drawn(2, 32, 24)), Routing(1, normalized=True)
    experts = [packed(weights, clamp_and_multiply)[0], biased(weights)[1]]
    assert isinstance(mix(experts, routing), OneByOne)
    experts = [packed(weights)[0], packed(weights, clamp_and_multiply)[1]]
    assert isinstance(mix(experts, routing), OneByOne)
