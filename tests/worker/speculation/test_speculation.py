"""Who gets drafts: only from what a step has left, never past a lease, and only while it pays."""

from types import SimpleNamespace

import pytest
import torch

from common.sampling import SamplingParameters
from tests.worker.driver import HistoryModel, fake_driver
from tests.worker.grammars import byte_guidance, history_driver, regex
from tests.worker.speculation.oracle import Oracle
from worker.speculation.speculation import MOST_ROWS, Speculation

PROMPT = [3, 1, 4, 1, 5, 9, 2, 6]


def prompt(number: int, length: int = 8) -> list[int]:
    return [(number + place) % 50 for place in range(length)]


def texts(*prompts: list[int], count: int = 60) -> list[list[int]]:
    model = HistoryModel()
    return [[*ids, *model.continuation(ids, count)] for ids in prompts]


def driver_with(oracle, tokens: int = 4, **options):
    return fake_driver(speculation=Speculation(tokens, oracle), **options)


def check(driver, number: int, ids: list[int], count: int) -> None:
    record = driver.records[number]
    assert (record.error, record.finish) == ("", "length")
    assert record.ids == HistoryModel().continuation(ids, count)
    assert record.computed == len(ids) + count - 1


def test_a_step_gives_all_that_was_guessed_right_and_one_more():
    driver = driver_with(Oracle(texts(PROMPT)))
    driver.add(0, PROMPT, 11)
    driver.run()
    assert driver.model.steps == [(8,), (5,), (5,)]
    check(driver, 0, PROMPT, 11)
    assert driver.records[0].started.queue_s == 0.25


def test_the_last_token_is_never_a_draft():
    driver = driver_with(Oracle(texts(PROMPT)))
    driver.add(0, PROMPT, 4)
    driver.run()
    assert driver.model.steps == [(8,), (3,)]
    check(driver, 0, PROMPT, 4)


@pytest.mark.parametrize("budget", [1, 2, 3, 4, 7, 12])
def test_the_budget_goes_to_who_decodes_then_to_prompts_then_to_drafts(budget):
    prompts = [prompt(number) for number in range(3)]
    driver = driver_with(Oracle(texts(*prompts)), step_tokens=budget)
    for number, ids in enumerate(prompts):
        driver.add(number, ids, 9)
        driver.step()
    driver.run()
    assert max(sum(step) for step in driver.model.steps) <= budget
    for number, ids in enumerate(prompts):
        check(driver, number, ids, 9)


def test_what_is_left_is_shared_evenly():
    prompts = [prompt(number) for number in range(3)]
    driver = driver_with(Oracle(texts(*prompts)), step_tokens=9)
    driver.dispatch(add=[driver.new(number, ids, 30) for number, ids in enumerate(prompts)])
    while len(driver.model.steps) < 12:
        driver.step()
    assert (3, 3, 3) in driver.model.steps


def test_no_more_rows_than_the_worst_step_has():
    prompts = [prompt(number, 3) for number in range(40)]
    driver = driver_with(Oracle(texts(*prompts)), step_tokens=1000, blocks=200)
    driver.dispatch(add=[driver.new(number, ids, 20) for number, ids in enumerate(prompts)])
    driver.run()
    rows = max(sum(step) for step in driver.model.steps[1:])
    assert 40 < rows <= 40 + MOST_ROWS
    for number, ids in enumerate(prompts):
        check(driver, number, ids, 20)


def test_fewer_drafts_where_many_decode():
    """The first, before anything is known of costs: as many as win more than their rows take."""
    found = {}
    for count in (1, 8, 16):
        prompts = [prompt(number, 3) for number in range(count)]
        driver = driver_with(Oracle(texts(*prompts)), step_tokens=4096, blocks=99)
        driver.dispatch(add=[driver.new(number, ids, 20) for number, ids in enumerate(prompts)])
        driver.step()
        driver.step()
        found[count] = driver.model.steps[1]
    assert found == {1: (5,), 8: (3,) * 8, 16: (2,) * 16}


@pytest.mark.parametrize("penalty", ["output_frequency_penalty", "repetition_penalty"])
def test_accepted_drafts_count_for_penalties(penalty):
    sampling = SamplingParameters(**{penalty: 2.0})
    plain = fake_driver()
    plain.add(0, PROMPT, 80, sampling=sampling)
    plain.run()
    driver = driver_with(Oracle([[*PROMPT, *plain.records[0].ids]]))
    driver.add(0, PROMPT, 80, sampling=sampling)
    driver.run()
    assert driver.records[0].ids == plain.records[0].ids
    assert len(driver.model.steps) < 40


def test_fewer_drafts_for_whom_they_are_wrong():
    driver = driver_with(Oracle(texts(PROMPT), lies=1.0))
    driver.add(0, PROMPT, 60)
    driver.run()
    check(driver, 0, PROMPT, 60)
    assert driver.model.steps[1] == (5,)
    assert driver.model.steps[20:].count((1,)) >= len(driver.model.steps) - 22


def test_drafts_stay_within_the_lease():
    driver = driver_with(Oracle(texts(PROMPT)), 7)
    untouched = driver.engine.cache[:16].clone()
    driver.add(0, PROMPT, 40, room=16)
    taken = [driver.run()]
    while driver.engine.held:
        assert driver.records[0].computed % 16 == 0
        driver.grant(0, 16)
        taken.append(driver.run())
    assert driver.model.steps[:3] == [(8,), (6,), (2,)]
    check(driver, 0, PROMPT, 40)
    # block 0 is where a table ends
    assert torch.equal(driver.engine.cache[:16], untouched)


def test_beside_prompts_only_what_the_bound_on_stalls_leaves():
    ids = [prompt(1), prompt(2, 300)]
    driver = driver_with(Oracle(texts(ids[0])), step_tokens=256)
    driver.max_stall_s = 1e-6
    driver.add(0, ids[0], 40)
    driver.step()
    driver.step()
    driver.add(1, ids[1], 2)
    driver.run()
    assert driver.model.steps[:5] == [(8,), (5,), (1, 128), (1, 128), (5, 44)]
    check(driver, 0, ids[0], 40)
    check(driver, 1, ids[1], 2)


def test_others_beside_it_decode_one_token():
    prompts = [prompt(number) for number in range(3)]
    driver = driver_with(Oracle(texts(prompts[1])))
    driver.dispatch(add=[driver.new(number, ids, 12) for number, ids in enumerate(prompts)])
    driver.run()
    assert driver.model.steps[1] == (1, 1, 4)
    for number, ids in enumerate(prompts):
        check(driver, number, ids, 12)


def test_a_step_that_fails_by_a_draft_is_repeated_without_drafts():
    lying = Oracle(texts(PROMPT), lies=1.0)
    told = HistoryModel().continuation(PROMPT, 30)
    driver = driver_with(lying)
    driver.model.fail_on = set(range(50)) - set(told) - set(PROMPT)
    driver.add(0, PROMPT, 30)
    driver.run()
    assert any(len(step) == 1 and step[0] > 1 for step in driver.model.steps[1:])
    check(driver, 0, PROMPT, 30)


def test_what_is_no_number_ends_the_sequence_where_it_would_without_drafts():
    driver = driver_with(Oracle(texts(PROMPT)))
    told = HistoryModel().continuation(PROMPT, 3)
    driver.model.nan_on = {told[2]}
    driver.add(0, PROMPT, 20)
    driver.run()
    record = driver.records[0]
    assert record.error == "the model's output was not a number"
    assert record.ids == told
    assert driver.engine.held == 0


def test_released_in_the_middle():
    driver = driver_with(Oracle(texts(PROMPT)))
    driver.add(0, PROMPT, 40)
    for _ in range(3):
        driver.step()
    driver.release(0)
    assert driver.run() == 0
    assert driver.released == [0]
    assert driver.engine.held == 0
    assert driver.records[0].ids == HistoryModel().continuation(PROMPT, 11)


def test_who_follows_a_grammar_has_no_drafts(tmp_path):
    guidance = byte_guidance(tmp_path)
    free, bound = prompt(1), prompt(2)
    model = HistoryModel(256)
    oracle = Oracle([[*ids, *model.continuation(ids, 40)] for ids in (free, bound)])
    driver = history_driver(guidance, speculation=Speculation(4, oracle))
    driver.dispatch(
        add=[
            driver.new(0, free, 12),
            driver.new(1, bound, 12, grammar=regex("[a-z]{20}"), stop_token_ids=[0]),
        ]
    )
    driver.run()
    guidance.close()
    assert driver.model.steps[1] == (1, 5)
    assert driver.records[0].ids == model.continuation(free, 12)
    assert bytes(driver.records[1].ids).decode().islower()


class Guess:
    """Of a sequence whose drafts are right with some probability."""

    def __init__(self, chance):
        self.chance = chance

    def expect(self, known, worth):
        return self.chance


@pytest.mark.parametrize(
    ("chances", "waits"),
    [([0.2], True), ([0.0], False), ([0.9] + [None] * 3, True), ([0.9] + [0.0] * 15, False)],
)
def test_a_wait_has_to_win_more_than_it_costs_everybody(chances, waits):
    parts = [
        SimpleNamespace(
            end=9,
            sequence=SimpleNamespace(
                speculator=None if chance is None else Guess(chance),
                blocks=[1], launched=8, limit=20, known=9,
            ),
        )
        for chance in chances
    ]  # fmt: skip
    turn = SimpleNamespace(readers=[], decoders=parts, decoding=len(parts))
    assert Speculation(4).waits(turn) == waits
    assert not Speculation(0).waits(turn)
    turn.readers = parts
    assert not Speculation(4).waits(turn)
    for part in parts:
        part.sequence.launched = 15  # the lease is full with what is under way
    turn.readers = []
    assert not Speculation(4).waits(turn)


def test_a_draft_has_to_win_more_than_its_row_costs():
    speculation = Speculation(4)
    assert speculation.worth(1, 1) == pytest.approx(0.03, rel=0.1)
    assert speculation.worth(1, 1) < speculation.worth(8, 8) < speculation.worth(64, 64) < 1


@pytest.mark.parametrize(("row_s", "expected"), [(0.0, 0.02), (0.05, 0.4 / 1.4), (1.0, 8 / 9)])
def test_what_a_row_costs_is_measured(row_s, expected):
    speculation = Speculation(4)

    def step(rows: int) -> None:
        parts = [SimpleNamespace(tokens=rows)]
        speculation.observe(1.0 + row_s * rows, SimpleNamespace(parts=parts, readers=[]))

    known = speculation.worth(8, 8)
    for rows in range(8, 12):
        step(rows)
        assert speculation.worth(8, 8) == known  # a few steps say nothing
    for rows in list(range(8, 24)) * 20:
        step(rows)
    assert speculation.worth(8, 8) == pytest.approx(expected, rel=0.05)
    for _ in range(1000):
        step(8)  # says nothing of what one more costs
    assert speculation.worth(8, 8) == pytest.approx(expected, rel=0.05)
