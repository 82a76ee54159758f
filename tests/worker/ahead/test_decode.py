"""Which steps are replayed: those recorded over the state as it is now."""

from types import SimpleNamespace

import pytest
import torch

from tests.worker.driver import CPU
from worker.ahead.decode import DecodeStep
from worker.ahead.state import SlotState
from worker.kernels.reference.gather import gather_inputs

REPLAYED, RUN = torch.tensor(1), torch.tensor(0)


class Recording:
    """As ``Transfers``: what it has recorded says so."""

    def __init__(self):
        self.bounds = []

    def record(self, program, bounds):
        self.bounds.append(bounds)
        program(bounds)
        return lambda lengths: REPLAYED


@pytest.fixture
def state():
    return SlotState(2, 2, 2, CPU)


@pytest.fixture
def step(state):
    model = SimpleNamespace(forward=lambda inputs, cache: RUN)
    return DecodeStep(model, None, state, Recording(), 32, gather_inputs)


def test_a_size_is_replayed_or_run(step):
    step.record([2])
    assert (step.size_for(1), step.size_for(2), step.size_for(3)) == (2, 2, 3)
    assert step(2, (5,)) is REPLAYED
    assert step(1, (5,)) is RUN


def test_the_largest_is_recorded_first_and_all_for_the_longest_sequences(state):
    recording, widths = Recording(), []

    def forward(inputs, cache):
        widths.append(inputs.block_tables.shape[1])
        return RUN

    step = DecodeStep(SimpleNamespace(forward=forward), None, state, recording, 32, gather_inputs)
    step.record([1, 2])
    assert recording.bounds == [(32, 32), (32,)]
    step(3, (5,))
    assert widths == [2, 2, 1]  # blocks: all, and as many as are needed


def test_what_was_recorded_over_a_state_that_had_grown_is_replayed(step, state):
    state.resize(5, 2)
    step.record([1])
    assert step.size_for(1) == 1
    assert step(1, (5,)) is REPLAYED


def test_nothing_is_replayed_over_a_state_that_has_grown_since(step, state):
    step.record([1])
    state.resize(5, 2)
    assert step(1, (5,)) is RUN  # a follower is told sizes, it does not ask
