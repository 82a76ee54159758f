"""How many drafts of a sequence are worth a row of a step."""

import math

import pytest

from worker.speculation.speculator import _REST_TOKENS, Speculator


class Counting:
    """Has as many ideas as it is asked for."""

    def propose(self, most):
        return [1] * most


class Saying:
    """Says this, if anything, as long as it is said."""

    token: int | None = 7

    def propose(self, most):
        return [] if self.token is None else [self.token] * most


def drafted(speculator: Speculator, known: int, most: int = 8, worth: float = 0.1) -> int:
    return len(speculator.draft(known, most, worth))


def test_the_surer_the_longer():
    speculator = Speculator(Counting())
    assert speculator.chance == 0.5
    assert drafted(speculator, 10) == int(math.log(0.1) / math.log(0.5)) == 3
    for known in range(20, 60):
        speculator.learn(4, 4, known)
    assert speculator.chance > 0.99
    assert drafted(speculator, 60) == 8
    assert drafted(speculator, 60, most=0) == 0


def test_of_what_comes_after_a_rejected_one_nothing_is_learned():
    speculator = Speculator(Counting())
    speculator.learn(4, 1, 20)  # one was right, the next was not
    assert speculator.chance == pytest.approx((0.8 * 1 + 1) / (0.8 * 2 + 2))


def test_rejected_ones_become_fewer_and_then_rare():
    speculator = Speculator(Counting())
    known, rows = 10, []
    for _ in range(400):
        count = drafted(speculator, known)
        known += 1
        if count:
            speculator.learn(count, 0, known)
        rows.append(count)
    assert rows[:3] == [3, 1, 1]
    tail = rows[100:]
    assert sum(tail) == pytest.approx(len(tail) / _REST_TOKENS, abs=1)


def test_a_text_that_begins_to_repeat_itself_is_noticed():
    speculator = Speculator(Counting())
    for known in range(10, 100):
        if drafted(speculator, known, worth=0.4):
            speculator.learn(1, 0, known)
    begins, gained = 100, 0
    for known in range(begins, begins + 2 * _REST_TOKENS):
        count = drafted(speculator, known, worth=0.4)
        if count:
            speculator.learn(count, count, known)
            gained += count
    assert gained > _REST_TOKENS


def test_drafts_that_win_less_than_they_cost_are_not_made():
    speculator = Speculator(Counting())
    for known in range(10, 200):
        speculator.learn(1, known % 2, known)  # half of them are right
    assert drafted(speculator, 300, worth=0.2) >= 2
    assert drafted(speculator, 300, most=0, worth=0.9) == 0
    assert drafted(speculator, 300, worth=0.9) == 1  # to see
    speculator.learn(1, 0, 300)
    assert drafted(speculator, 301, worth=0.9) == 0


def test_what_is_guessed_of_a_token_under_way_is_learned_from_though_nobody_waits():
    drafter = Saying()
    speculator = Speculator(drafter)
    assert speculator.expect(10, worth=0.4) == 0.5
    speculator.see(8)
    assert speculator.chance == pytest.approx(0.8 * 1 / (0.8 * 2 + 1))
    assert not speculator.expect(11, worth=0.4)  # and so on, until they are right
    for known in range(11, 20):
        speculator.see(7)
        worth_it = speculator.expect(known, worth=0.4)
    assert worth_it == speculator.chance
    speculator.see(7)
    chance = speculator.chance
    speculator.see(9)  # of which nothing was guessed
    assert speculator.chance == chance


def test_a_guess_that_drafts_have_overtaken_is_forgotten():
    speculator = Speculator(Saying())
    speculator.expect(10, worth=0.1)
    speculator.learn(2, 2, 13)
    chance = speculator.chance
    speculator.see(9)
    assert speculator.chance == chance


def test_nothing_is_expected_where_there_is_no_guess_or_none_may_be_made():
    drafter = Saying()
    speculator = Speculator(drafter)
    drafter.token = None
    assert not speculator.expect(10, worth=0.1)
    speculator.see(7)
    assert speculator.chance == 0.5
    drafter.token = 7
    assert speculator.draft(10, 4, worth=0.6) == [7]  # to see
    speculator.learn(1, 0, 11)
    assert not speculator.expect(12, worth=0.1)  # it rests
    assert speculator.expect(11 + _REST_TOKENS, worth=0.1)
