"""Who has which adapter, as every runner tells a model that cannot be fooled."""

import random
from types import SimpleNamespace

import pytest
import torch

from common.messages import BLOCK_TOKENS
from tests.worker.ahead.adapted import NAMES, AdaptedModel, Plans
from tests.worker.ahead.waiting import CountedTransfers
from tests.worker.driver import CPU, Driver, HistoryModel
from worker.ahead.state import SlotState

PROMPT = [3, 1, 4, 1, 5, 9, 2, 6]


@pytest.fixture
def driver(runner):
    return Driver(
        AdaptedModel(), HistoryModel.cache(200), blocks=200, runner=runner, adapters=NAMES
    )


def check(driver, wanted) -> None:
    assert not driver.model.wrong
    for number, (prompt, count, adapter) in wanted.items():
        expected = driver.model.continuation(prompt, count, adapter)
        assert driver.records[number].ids == expected, (number, adapter)


def test_rows_change_in_every_way(driver):
    """They come, go from among others, come back, and grow beyond what was foreseen."""
    choice = random.Random(7)
    driver.step_tokens = 16
    wanted, left = {}, []
    for number in range(24):
        adapter = choice.choice(["", *NAMES])
        if number % 8 == 0:
            driver.run()
            adapter = ""
        prompt = choice.choices(range(50), k=choice.randrange(1, 20))
        wanted[number] = prompt, choice.randrange(8, 24), adapter
        driver.add(number, *wanted[number][:2], adapter=wanted[number][2])
        for _ in range(choice.randrange(1, 4)):
            driver.step()
        running = [
            other for other in wanted if other not in left and not driver.records[other].finish
        ]
        if number % 3 == 2 and len(running) > 2:
            other = running[choice.randrange(1, len(running) - 1)]
            driver.release(other)
            left.append(other)
            driver.step()
        if number % 5 == 4 and left:
            other = left.pop()
            known = driver.records[other].ids[:]
            prompt, count, adapter = wanted[other]
            driver.add(other, prompt, count, generated=known, adapter=adapter)
    driver.run()
    for number in left:
        del wanted[number]
    assert len(wanted) > 15
    check(driver, wanted)
    assert {0, 1, 2, 3, 4} <= set(driver.model.adapted)


def test_a_step_that_fails_has_told_nobody_anything_wrong(driver):
    wanted = {0: (PROMPT, 9, "a"), 1: ([*PROMPT, 9], 9, "b"), 2: (PROMPT[1:], 9, "")}
    unlucky = driver.model.continuation(*wanted[1])[1]
    driver.dispatch(
        add=[
            driver.new(number, prompt, count, adapter=adapter)
            for number, (prompt, count, adapter) in wanted.items()
        ]
    )
    driver.model.fail_on = {unlucky}
    for number in (0, 2):
        assert unlucky not in driver.model.continuation(*wanted[number])
    driver.run()
    assert driver.records[1].error == "the forward pass failed (RuntimeError)"
    del wanted[1]
    check(driver, wanted)


def test_another_in_the_place_of_one_with_another_adapter(driver):
    """The same slot, and the same rows: what the device knows of them is not the same."""
    wanted = {}
    for number, adapter in enumerate(["a", "b", "", "b", "a"]):
        wanted[number] = PROMPT, 6, adapter
        driver.add(number, PROMPT, 6, adapter=adapter)
        driver.run()
    check(driver, wanted)


def test_nothing_is_sent_until_somebody_comes_or_goes(monkeypatch):
    """Then it goes with what the step sends anyway."""
    transfers = CountedTransfers()
    monkeypatch.setattr("worker.engine.transfers_of", lambda device: transfers)
    cache = HistoryModel.cache(64)
    driver = Driver(AdaptedModel(), cache, runner="recorded", adapters=NAMES)
    wanted = {0: (PROMPT, 30, "b"), 1: (PROMPT, 12, ""), 2: (PROMPT, 30, "a")}
    add = [
        driver.new(number, prompt, count, adapter=adapter)
        for number, (prompt, count, adapter) in wanted.items()
    ]
    driver.dispatch(add=add)
    sent = []
    while True:
        before = transfers.uploads
        if driver.step() is None:
            break
        sent.append(transfers.uploads - before)
    check(driver, wanted)
    # The first launches two: the prompts, and one in which all decode. The eleventh after it
    # launches the first without who has had twelve tokens, whose blocks the next one forgets.
    assert sent == [2] + [int(number in (11, 12)) for number in range(1, 30)]
    assert transfers.waits == len(sent)


def test_rows_beyond_those_of_a_step_have_none_and_states_that_grow_keep_the_others():
    state = SlotState(3, 2, 5, CPU, Plans())
    state.set_adapters((2, -1, 0), 4)
    apply(state)
    assert state.adapter_plan(4).view(4, 2).tolist() == [[3, 4], [0, 4], [1, 4], [0, 0]]
    state.set_adapters((1,), 1)
    state.enter(2, 70, 12, 9)
    state.resize(9, 3)
    assert state.adapter_plan(9).view(9, 2).tolist()[:4] == [[3, 4], [0, 4], [1, 4], [0, 0]]
    apply(state)
    assert state.adapter_plan(1).tolist() == [2, 1]
    assert (state.last_tokens[2], state.known[2], state.prompts[2]) == (70, 12, 9)


@pytest.mark.parametrize("slots", [3, 4])
def test_it_begins_where_kernels_are_compiled_for(slots):
    assert SlotState(slots, 2, 0, CPU, Plans()).adapter_plan(3).data_ptr() % 16 == 0


def test_what_was_of_a_larger_step_is_of_nobody_when_smaller_ones_are_recorded():
    driver = Driver(AdaptedModel(), HistoryModel.cache(64), runner="recorded", adapters=NAMES)
    driver.dispatch(add=[driver.new(n, PROMPT, 5, adapter=NAMES[n]) for n in range(3)])
    driver.run()
    driver.engine.prepare()
    state = driver.engine._runner._state
    assert not state.adapter_plan(8).any()
    driver.dispatch(add=[driver.new(3 + n, PROMPT, 5, adapter=NAMES[n]) for n in range(3)])
    driver.run()
    check(driver, {3 + n: (PROMPT, 5, NAMES[n]) for n in range(3)})


def test_the_same_rows_are_told_anew_when_they_are_no_longer_padded():
    """As what was recorded reads tensors of before the state grew."""
    driver = Driver(
        AdaptedModel(), HistoryModel.cache(99), blocks=99, runner="recorded", adapters=NAMES
    )
    add = [driver.new(n, PROMPT, 20, adapter=NAMES[n]) for n in range(3)]
    driver.dispatch(add=add)
    for _ in range(3):
        driver.step()
    assert len(driver.model.steps[-1]) == 4
    driver.grant(1, 64 * BLOCK_TOKENS)
    driver.run()
    assert len(driver.model.steps[-1]) == 3
    check(driver, {n: (PROMPT, 20, NAMES[n]) for n in range(3)})


def apply(state: SlotState) -> None:
    numbers = torch.from_numpy(state.pending().numbers)
    state.apply(SimpleNamespace(tensor=numbers))
