"""Where low-rank pairs may be added, and what a step without adapters notices of them: nothing."""

import pytest
import torch

from tests.worker.models.families import FAMILIES
from tests.worker.tiny import write_tiny
from worker.kernels.low_rank import LowRank
from worker.kernels.reference.low_rank import ReferenceLowRank
from worker.kernels.select import reference
from worker.layers.adapted import StepAdapters
from worker.layers.linear import FusedLinear, RowParallelLinear
from worker.loading import load_model
from worker.sharding import Sharding, Units

CPU = torch.device("cpu")


@pytest.mark.parametrize("family", list(FAMILIES))
def test_places_are_weights_of_the_checkpoint(family, tmp_path):
    write_tiny(tmp_path, FAMILIES[family]())
    model = load_model(str(tmp_path), device=CPU, dtype=torch.float32, weights=False)
    shapes = {slot.key: slot.shape for slot in model.slots()}
    places = list(model.places())
    assert len({place.key for place in places}) == len(places)
    for place in places:
        stored = shapes[f"{place.key}.weight"]
        assert place.shape == (stored[::-1] if family == "gpt2" else stored)
        assert 0 <= place.start < place.layer.outputs
    assert not any("lm_head" in place.key or "expert" in place.key for place in places)


def filled(layer, *tensors):
    for slot, tensor in zip(layer.slots("x"), tensors, strict=True):
        slot.fill(tensor)
    return layer


def test_a_step_without_adapters_runs_what_it_always_ran():
    kernels = reference(CPU, torch.float32)
    layer = FusedLinear(kernels, 8, {"a": Units(4), "b": Units(6)}, bias=False)
    filled(layer, torch.randn(4, 8), torch.randn(6, 8))
    before, x = layer.operation, torch.randn(3, 8)
    plain = layer(x)
    step = StepAdapters(ReferenceLowRank(), CPU, 1)
    pair = LowRank(torch.randn(2, 8), torch.randn(10, 2))
    layer.adapt(step.kernel.pack([pair]), step)
    assert torch.equal(layer(x), plain)
    assert torch.equal(before(x), plain)
    step.plan = [(0, torch.tensor([1]))]
    found = layer(x)
    assert torch.equal(found[[0, 2]], plain[[0, 2]])
    assert torch.allclose(found[1], plain[1] + x[1] @ pair.down.T @ pair.up.T, atol=1e-5)


def test_shards_add_pairs_before_they_add_up():
    """Each with its part of the inputs: what is added up is that of the whole layer."""
    weight, down, up = torch.randn(5, 8), torch.randn(2, 8), torch.randn(5, 2)
    x = torch.randn(3, 8)
    parts = []

    def run(rank):
        sharding = Sharding(rank, 2, add_up=lambda own: parts.append(own) or own)
        kernels = reference(CPU, torch.float32, sharding)
        layer = RowParallelLinear(kernels, Units(8), 5, bias=False)
        own = slice(4 * rank, 4 * rank + 4)
        filled(layer, weight[:, own])
        step = StepAdapters(ReferenceLowRank(), CPU, 1)
        layer.adapt(step.kernel.pack([LowRank(down[:, own], up)]), step)
        step.plan = [(0, None)]
        layer(x[:, own])

    run(0)
    run(1)
    assert len(parts) == 2
    assert torch.allclose(sum(parts), x @ (weight + up @ down).T, atol=1e-5)


def test_rows_beyond_those_of_a_step_have_none():
    kernel = ReferenceLowRank()
    step = StepAdapters(kernel, CPU, 3)
    numbers = torch.from_numpy(step.lay_out((2, -1, 0), 5))
    assert len(numbers) == step.room(5)
    pairs = [LowRank(torch.ones(1, 2), torch.full((1, 1), 1.0 + n)) for n in range(3)]
    y = torch.zeros(5, 1)
    kernel.pack(pairs)(y, torch.ones(5, 2), kernel.laid_out(numbers, 5))
    assert y[:, 0].tolist() == [6.0, 0.0, 2.0, 0.0, 0.0]
