"""Drafts by n-grams: what followed the last time, found at once, in bounded memory."""

import random

import pytest

from worker.speculation.ngrams import _MOST_PLACES, _SIZES, NgramDrafter


def searched(ids: list[int], most: int) -> list[int]:
    """The same by looking at everything."""
    for size in _SIZES:
        for place in range(len(ids) - 1, size - 1, -1):
            if ids[place - size : place] == ids[len(ids) - size :]:
                text = list(ids)
                while len(text) < len(ids) + most:
                    text.append(text[place + len(text) - len(ids)])
                return text[len(ids) :]
    return []


@pytest.mark.parametrize(
    ("ids", "most", "expected"),
    [
        ([], 4, []),
        ([1], 4, []),
        ([1, 2], 4, []),
        ([1, 2, 3, 4, 5, 1, 2], 2, [3, 4]),
        ([1, 2, 3, 4, 5, 1, 2], 9, [3, 4, 5, 1, 2, 3, 4, 5, 1]),
        ([7, 7, 7], 3, [7, 7, 7]),
        # three tokens are surer than two, which were followed by something else later
        ([1, 2, 3, 9, 2, 3, 8, 1, 2, 3], 2, [9, 2]),
        # of two occurrences the later one
        ([1, 2, 3, 9, 1, 2, 3, 8, 1, 2, 3], 1, [8]),
        ([1, 2, 3, 4, 5], 3, []),
    ],
)
def test_what_followed_the_last_time(ids, most, expected):
    assert NgramDrafter(ids, 100).propose(most) == expected == searched(ids, most)


@pytest.mark.parametrize("seed", range(5))
def test_a_text_that_grows(seed):
    """However many tokens came since it was asked last."""
    choice = random.Random(seed)
    ids: list[int] = [choice.randrange(4) for _ in range(choice.choice([0, 3, 200]))]
    drafter = NgramDrafter(ids, 2000)
    found = 0
    for _ in range(60):
        ids += [choice.randrange(4) for _ in range(choice.choice([0, 1, 1, 3, 40]))]
        most = choice.randrange(1, 7)
        proposed = drafter.propose(most)
        assert proposed == searched(ids, most)
        found += bool(proposed)
    assert found > 30


def test_ids_of_a_large_vocabulary_in_a_long_text():
    choice = random.Random(1)
    passage = [choice.randrange(2**20) for _ in range(300)]
    ids = [choice.randrange(2**20) for _ in range(50_000)]
    ids[20_000:20_300] = passage
    drafter = NgramDrafter(ids, 200_000)
    ids += passage[:200]
    assert drafter.propose(5) == passage[200:205]
    assert sum(len(table) * table.itemsize for table in drafter._tables) == 8 * _MOST_PLACES
