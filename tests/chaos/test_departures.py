"""Clients that leave in every state, streaming or not: their blocks return, nobody else notices."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.chaos.conftest import Survived
from tests.chaos.kinds import KINDS, SLEEP, SLOW, TOKENS, Kind, generate, generate_stream
from tests.chaos.scene import Scene, scene
from tests.chaos.talk import Talk, together

MOST = 20
"""Sequences of a step: those that stay, and one more."""
PROMPTLY_S = 10.0
LONG = "Tell me a story. " * 180
"""Several chunks of a prompt: with SLEEP, several seconds of reading."""
BOTH = pytest.mark.parametrize("make", [generate, generate_stream])


@pytest.fixture(scope="module")
def house() -> Iterator[Scene]:
    with scene("--max-batch-size", "1", "--max-batch-prefill-tokens", "128") as made:
        yield made


@pytest.fixture(scope="module")
def roomy() -> Iterator[Scene]:
    with scene() as made:
        yield made


def used(made: Scene) -> float:
    return made.metric('millrace_kv_blocks{replica="0",state="used"}')


@BOTH
def test_while_waiting(house: Scene, make: Any) -> None:
    first = Talk(house.server, make("first", "Tell me a story"))
    house.server.until(lambda: house.metric("tgi_batch_current_size") == 1)
    second = Talk(house.server, make("second", "Tell me a tale"))
    house.server.until(lambda: house.metric("tgi_queue_size") == 1)
    second.leave()
    house.server.until(lambda: house.metric("tgi_queue_size") == 0, PROMPTLY_S)
    assert house.metric("millrace_live_sequences") == 1, "the first has to run on"
    assert first.wait().error == ""
    house.settle()


@BOTH
def test_while_its_prompt_is_read(house: Scene, make: Any) -> None:
    reader = Talk(house.server, make("reader", f"{LONG} {SLOW} {SLEEP}"))
    house.server.until(lambda: used(house) > 0, 60)
    reader.leave()
    house.server.until(lambda: used(house) == 0, PROMPTLY_S)
    assert reader.wait().error
    assert reader.received == 0
    house.settle()


@BOTH
def test_while_text_is_made(house: Scene, make: Any) -> None:
    talk = Talk(house.server, make("talker", "Tell me a story"))
    house.server.until(lambda: house.metric("tgi_batch_current_size") == 1)
    house.server.until(lambda: used(house) >= 2)
    talk.leave()
    house.server.until(lambda: used(house) == 0, PROMPTLY_S)
    assert talk.wait().error
    assert talk.received < TOKENS
    house.settle()


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
