"""Clients that leave in every state, streaming or not: their blocks return, nobody else notices.

A neighbour's stream is the clock: it gets a token with every step, and steps take ``PACE_S`` at
least. On a machine that is slow, its tokens are slow, too.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.chaos.conftest import Survived
from tests.chaos.kinds import KINDS, SLEEP, SLOW, TOKENS, Kind, generate, generate_stream
from tests.chaos.scene import PACE_S, Scene, scene
from tests.chaos.talk import Talk, together

MOST_STEPS = 1 + round(1.0 / PACE_S)
"""That of the departure, and a second's."""
LIMIT_S = 20.0
"""Whatever the machine does meanwhile."""
LONG = "Tell me a story. " * 180
"""Several chunks of a prompt: with SLEEP, several seconds of reading."""
NEIGHBOUR = next(kind for kind in KINDS if kind.name == "chat, stream").lasting(1200)
BOTH = pytest.mark.parametrize("make", [generate, generate_stream])


@pytest.fixture(scope="module")
def house() -> Iterator[Scene]:
    with scene("--max-batch-size", "2", "--max-batch-prefill-tokens", "128") as made:
        yield made


@pytest.fixture
def neighbour(house: Scene) -> Iterator[Talk]:
    """Somebody whose stream goes on; others may be waited for while it does."""
    talk = Talk(house.server, NEIGHBOUR)
    house.server.until(lambda: talk.received > 2, 60)
    yield talk
    assert not talk.over, "the neighbour's text is too short for these tests"
    talk.leave()
    house.settle()


@pytest.fixture(scope="module")
def roomy() -> Iterator[Scene]:
    with scene() as made:
        yield made


def live(made: Scene) -> float:
    return made.scrape()["millrace_live_sequences"]


def held(made: Scene) -> float:
    """Sequences that hold blocks."""
    return made.scrape()["tgi_batch_current_size"]


def within_a_second(made: Scene, neighbour: Talk, leaver: Talk, gone: Callable[[], bool]) -> None:
    """The leaver leaves now, and is gone before its neighbour has got a second's tokens."""
    before = neighbour.received
    leaver.leave()
    made.server.until(gone, LIMIT_S)
    assert neighbour.received - before <= MOST_STEPS
    assert leaver.wait().error


@BOTH
def test_while_waiting(house: Scene, neighbour: Talk, make: Any) -> None:
    second = Talk(house.server, make("second", "Tell me a tale", max_new_tokens=400))
    house.server.until(lambda: held(house) == 2)
    third = Talk(house.server, make("third", "Tell me a tale"))
    house.server.until(lambda: house.scrape()["tgi_queue_size"] == 1)
    within_a_second(house, neighbour, third, lambda: live(house) == 2)
    assert third.received == 0
    second.leave()


@BOTH
def test_while_its_prompt_is_read(house: Scene, neighbour: Talk, make: Any) -> None:
    reader = Talk(house.server, make("reader", f"{LONG} {SLOW} {SLEEP}"))
    house.server.until(lambda: held(house) == 2, 60)
    within_a_second(house, neighbour, reader, lambda: held(house) == 1 == live(house))
    assert reader.received == 0


@BOTH
def test_while_text_is_made(house: Scene, neighbour: Talk, make: Any) -> None:
    talk = Talk(house.server, make("talker", "Tell me a story", max_new_tokens=400))
    before = neighbour.received
    house.server.until(lambda: held(house) == 2 and neighbour.received > before + 10)
    within_a_second(house, neighbour, talk, lambda: held(house) == 1 == live(house))
    assert talk.received < TOKENS


def test_most_leave_and_the_others_stay(roomy: Scene, survived: Survived) -> None:
    leaving: list[Kind] = [*KINDS, *KINDS]

    def strike(talks: list[Talk]) -> None:
        others = [Talk(roomy.server, kind) for kind in leaving]
        roomy.server.until(lambda: any(talk.received for talk in others), 60)
        for talk in others:
            talk.leave()
        for talk in others:
            talk.wait()

    outcomes = together(roomy.server, KINDS, strike)
    roomy.settle()
    survived(f"{len(leaving)} clients that leave", outcomes)
