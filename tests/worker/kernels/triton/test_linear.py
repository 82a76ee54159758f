"""Linear layers of few rows in Triton's interpreter, and who decides when they are taken."""

import itertools
import math
import weakref
from collections import Counter

import pytest
import torch
from torch.nn import functional

from worker.kernels.reference import linear as reference
from worker.kernels.reference.activation import GATED_ACTIVATIONS
from worker.kernels.triton.linear import MOST_ROWS, FewOrMany, Trials, multiply

NEAR = {torch.bfloat16: 4e-3, torch.float16: 5e-4, torch.float32: 1e-5}
SIZES = [(40, 64), (16, 300), (7, 8), (33, 512)]
"""Outputs, inputs: neither need be a multiple of a tile."""


def drawn(outputs, inputs, dtype, rows, *, bias):
    generator = torch.Generator().manual_seed(outputs)
    weight = torch.randn(outputs, inputs, generator=generator) * inputs**-0.5
    x = torch.randn(rows, inputs, generator=generator)
    added = torch.randn(outputs, generator=generator).to(dtype) if bias else None
    return weight.to(dtype), added, x.to(dtype)


def wanted_of(weight, bias, x):
    return functional.linear(x.double(), weight.double(), None if bias is None else bias.double())


def distance(found, wanted):
    return (found.double() - wanted).norm() / wanted.norm()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("outputs", "inputs"), SIZES)
def test_equals_the_product(outputs, inputs, dtype):
    for rows, bias in ((1, False), (5, True), (MOST_ROWS, False)):
        weight, added, x = drawn(outputs, inputs, dtype, rows, bias=bias)
        found = multiply(weight, added, x)
        assert found.dtype == dtype
        assert found.shape == (rows, outputs)
        assert distance(found, wanted_of(weight, added, x)) < NEAR[dtype]


@pytest.mark.parametrize(("outputs", "inputs"), SIZES)
def test_ends_with_what_follows(outputs, inputs):
    weight, bias, x = drawn(2 * outputs, inputs, torch.bfloat16, 3, bias=True)
    wanted = wanted_of(weight, bias, x)
    gated = multiply(weight, bias, x, gated=True)
    assert gated.shape == (3, outputs)
    assert distance(gated, GATED_ACTIVATIONS["silu"](wanted)) < NEAR[torch.bfloat16]
    wide = multiply(weight, bias, x, dtype=torch.float32)
    assert wide.dtype == torch.float32
    assert distance(wide, wanted) < NEAR[torch.float32]


def test_rows_need_not_lie_side_by_side():
    weight, _, both = drawn(20, 64, torch.bfloat16, 6, bias=False)
    wanted = wanted_of(weight, None, both[::2])
    assert distance(multiply(weight, None, both[::2]), wanted) < NEAR[torch.bfloat16]
    turned = both.T.contiguous().T
    assert distance(multiply(weight, None, turned[:3]), wanted_of(weight, None, both[:3])) < 4e-3


class Times:
    """What calls take: by the number of rows, and by who is asked."""

    def __init__(self, few, many):
        self.few, self.many = few, many
        self.asked = []

    def __call__(self, calls):
        ((own, x),) = {(call.func is multiply, call.args[-1]) for call in calls}
        assert not x.isnan().any()
        self.asked.append((own, len(x), len(calls)))
        assert all(len(call()) == len(x) for call in calls)
        return (self.few if own else self.many)(len(x))


def kind_of(trials, kind):
    return {"plain": trials.pack, "wide": trials.pack_wide, "gated": trials.pack_silu}[kind]


@pytest.mark.parametrize("kind", ["plain", "wide", "gated"])
def test_takes_what_is_faster(kind):
    """Up to four rows in the kernel, beyond in torch: both give what the layer is to give."""
    times = Times(few=lambda rows: float(rows), many=lambda rows: 6.0)
    trials = Trials(times)
    weight, bias, x = drawn(24, 32, torch.bfloat16, 20, bias=True)
    layer = kind_of(trials, kind)(weight, bias)
    assert isinstance(layer, FewOrMany)
    assert not any(layer.taken)
    trials.settle()
    assert [rows for rows in range(MOST_ROWS + 1) if layer.taken[rows]] == [1, 2, 3, 4]
    assert times.asked == [(own, rows, 1) for rows in (1, 2, 4, 8, 16) for own in (True, False)]
    wanted = wanted_of(weight, bias, x)
    if kind == "gated":
        wanted = GATED_ACTIVATIONS["silu"](wanted)
    for rows in (0, 1, 3, 5, 17):
        found = layer(x[:rows])
        assert found.dtype == (torch.float32 if kind == "wide" else torch.bfloat16)
        assert found.shape == wanted[:rows].shape
        if rows:
            assert distance(found, wanted[:rows]) < 8e-3


def test_each_shape_is_measured_once_with_all_its_layers_and_decided_for_them():
    times = Times(few=lambda rows: 1.0, many=lambda rows: 1.05)
    trials = Trials(times)
    shapes = [(24, 32), (24, 32), (32, 24), (24, 32)]
    layers = [trials.pack(torch.zeros(shape, dtype=torch.bfloat16), None) for shape in shapes]
    gated = trials.pack_silu(torch.zeros(shapes[0], dtype=torch.bfloat16), None)
    trials.settle()
    assert Counter(layers for _, _, layers in times.asked) == {3: 10, 1: 20}
    assert all(all(layer.taken[1:]) for layer in [*layers, gated])


@pytest.mark.parametrize("few", [1.0, 0.99, math.inf])
def test_no_gain_that_shows_changes_nothing(few):
    trials = Trials(Times(few=lambda rows: few, many=lambda rows: 1.0))
    layer = trials.pack(torch.zeros((24, 32), dtype=torch.float16), None)
    trials.settle()
    assert not any(layer.taken)


def test_float32_and_turned_weights_are_torchs():
    trials = Trials(lambda calls: pytest.fail("nothing is there to be measured"))
    for weight in (torch.ones(4, 6), torch.ones((6, 4), dtype=torch.bfloat16).T):
        layer = trials.pack(weight, None)
        assert not isinstance(layer, FewOrMany)
        x = torch.ones((2, 6), dtype=weight.dtype)
        assert torch.equal(layer(x), torch.full((2, 4), 6, dtype=weight.dtype))
    trials.settle()


def test_layers_that_have_been_measured_are_let_go():
    trials = Trials(lambda calls: 1.0)
    weight = torch.zeros((24, 32), dtype=torch.bfloat16)
    held = weakref.ref(weight)
    trials.pack(weight, None)
    del weight
    assert held() is not None
    trials.settle()
    assert held() is None


def test_adapters_find_the_sums_of_a_gated_layer():
    weight, bias, x = drawn(24, 32, torch.bfloat16, 2, bias=True)
    trials = Trials(Times(few=lambda rows: 1.0, many=lambda rows: 2.0))
    for pack, there in ((trials.pack_silu, True), (trials.pack, False)):
        parts = reference.opened(pack(weight, bias))
        assert (parts is not None) == there
        if parts is not None:
            assert distance(parts.linear(x), wanted_of(weight, bias, x)) < 8e-3


def test_the_log_says_what_was_chosen(caplog):
    caplog.set_level("INFO")
    numbers = itertools.cycle([1.0, 2.0, 2.0, 1.0])
    trials = Trials(lambda calls: next(numbers))
    trials.pack(torch.zeros((24, 32), dtype=torch.bfloat16), None)
    trials.settle()
    assert "linear layers 24x32, sums: in a kernel of our own with 1, 4, 16 rows" in caplog.text
