"""Who computes how much in a step: budget, lease, order. Tables, with the engine around them."""

import pytest

from tests.worker.driver import fake_driver


def prompt(length: int, first: int = 1) -> list[int]:
    return [(first + n) % 50 for n in range(length)]


@pytest.mark.parametrize(
    ("lengths", "budget", "expected"),
    [
        ([10], 64, [(10,), (1,), (1,)]),
        ([10], 4, [(4,), (4,), (2,), (1,), (1,)]),
        # a long prompt is cut, the next one waits for what is left
        ([10, 10], 8, [(8,), (2, 6), (1, 4), (1, 1), (1,)]),
        # decoding ones come first, wherever they stand in the order of dispatch
        ([9, 1], 4, [(1, 3), (1, 3), (1, 3), (1,), (1,)]),
        # the remainder of a prompt that is one token decodes
        ([5], 4, [(4,), (1,), (1,), (1,)]),
        ([3, 3, 3], 9, [(3, 3, 3), (1, 1, 1), (1, 1, 1)]),
    ],
)
def test_budget(lengths, budget, expected):
    driver = fake_driver(step_tokens=budget)
    driver.dispatch(add=[driver.new(n, prompt(k, n), 3) for n, k in enumerate(lengths)])
    driver.run()
    assert driver.model.steps == expected
    for number, length in enumerate(lengths):
        record = driver.records[number]
        assert record.ids == driver.model.continuation(prompt(length, number), 3)
        assert record.finish == "length"
    assert driver.engine.held == 0


def test_prompts_are_read_in_small_pieces_beside_decoding():
    driver = fake_driver(step_tokens=256)
    driver.max_stall_s = 1e-6  # no piece is small enough for that
    driver.add(0, prompt(100), 4)
    driver.step()
    driver.add(1, prompt(70, 5), 2)
    driver.add(2, prompt(20, 9), 2)
    driver.run()
    driver.add(3, prompt(200), 1)
    driver.run()
    # all of the first at once, since nobody decodes, and of the last
    assert driver.model.steps == [(100,), (1, 32), (1, 32), (1, 6, 20), (1, 1), (200,)]
    assert driver.records[1].ids == driver.model.continuation(prompt(70, 5), 2)


def test_more_decoding_sequences_than_tokens_take_turns():
    driver = fake_driver(step_tokens=2)
    driver.dispatch(add=[driver.new(n, [n + 1], 4) for n in range(5)])
    served = [tuple(item.tokens.id for item in driver.step()) for _ in range(10)]
    assert served == [(0, 1), (2, 3), (4, 0), (1, 2), (3, 4)] * 2
    assert driver.step() is None
    for number in range(5):
        assert driver.records[number].ids == driver.model.continuation([number + 1], 4)


def test_a_sequence_without_room_waits_and_the_others_go_on():
    driver = fake_driver()
    driver.add(0, prompt(14), 30, room=16)
    driver.add(1, prompt(5, 9), 6)
    driver.run()
    # 14 of the prompt and 2 of its own are written: the third token came with the second's step
    assert (len(driver.records[0].ids), driver.records[0].computed) == (3, 16)
    assert driver.records[1].finish == "length"
    driver.grant(0, 16)
    driver.run()
    assert len(driver.records[0].ids) == 19
    driver.grant(0, 32)
    driver.run()
    assert driver.records[0].ids == driver.model.continuation(prompt(14), 30)
    assert driver.records[0].finish == "length"


def test_a_prompt_is_read_as_far_as_its_lease_reaches():
    driver = fake_driver()
    driver.add(0, prompt(40), 2, room=32)
    driver.run()
    assert driver.model.steps == [(32,)]
    assert driver.records[0].computed == 32
    driver.grant(0, 16)
    driver.run()
    assert driver.model.steps == [(32,), (8,), (1,)]
    assert driver.records[0].ids == driver.model.continuation(prompt(40), 2)


def test_without_any_block_nothing_happens():
    driver = fake_driver()
    driver.add(0, prompt(4), 2, blocks=[])
    assert driver.step() is None
    driver.grant(0, 16)
    driver.run()
    assert driver.records[0].finish == "length"


def test_only_rows_that_are_needed_get_logits():
    driver = fake_driver(step_tokens=16)
    driver.add(0, prompt(40), 2)
    driver.run()
    assert driver.model.logit_rows == [1, 1]


def test_a_budget_of_nothing_is_one_token():
    driver = fake_driver(step_tokens=0)
    driver.add(0, prompt(3), 2)
    driver.run()
    assert driver.model.steps == [(1,)] * 4
