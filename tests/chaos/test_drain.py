"""SIGTERM under load: nothing new is taken, what runs is finished, the exit status is 0.

So it is when supervisord is killed, but for the status.
"""

import os
import signal

import pytest

from tests.chaos.conftest import Survived
from tests.chaos.kinds import KINDS, generate, generate_stream
from tests.chaos.knocking import REFUSED, Knocker
from tests.chaos.scene import scene
from tests.chaos.talk import Talk, together
from tests.processes import alive, children_of

GRACE_S = 60
STOP_LIMIT_S = 30.0
STREAMS = [kind for kind in KINDS if kind.name in {"chat, stream", "penalties, stream"}]
LONG_TOKENS = 900
"""At the pace of these servers they take 18 s."""
LASTING = [kind.lasting(tokens) for kind in STREAMS for tokens in (10, 40, 160)]


def test_what_runs_is_finished(survived: Survived) -> None:
    """And who has connected is served, also one who says nothing before the port is closed."""
    knockers: list[Knocker] = []
    with scene("--graceful-termination-timeout", str(GRACE_S), frontends=2) as house:
        server = house.server

        def strike(talks: list[Talk]) -> None:
            for hesitates_s in (0.0, 0.0, 0.2, 0.5):
                knockers.append(Knocker(house, keeps=False, hesitates_s=hesitates_s))
            server.until(lambda: all(knocker.answered for knocker in knockers), 60)
            server.process.send_signal(signal.SIGTERM)
            server.until(lambda: all(knocker.failed for knocker in knockers), STOP_LIMIT_S)
            for knocker in knockers:
                knocker.stop()
            assert not all(talk.over for talk in talks), "the texts are too short for this test"

        outcomes = together(server, KINDS, strike)
        assert server.process.wait(STOP_LIMIT_S) == 0
    answered = sum(knocker.answered for knocker in knockers)
    survived(f"SIGTERM, and time to finish; {answered} short ones answered", outcomes)
    for knocker in knockers:
        assert set(knocker.failed) == REFUSED, knocker.failed


def test_what_runs_is_finished_though_supervisord_is_killed(survived: Survived) -> None:
    """And nobody is left when it is."""
    kinds = [kind for kind in KINDS if kind.streams]
    with scene("--graceful-termination-timeout", str(GRACE_S), frontends=2) as house:
        server = house.server
        family = children_of(server.process.pid)

        def strike(talks: list[Talk]) -> None:
            server.until(lambda: all(talk.received for talk in talks), 60)
            assert not all(talk.over for talk in talks), "the texts are too short for this test"
            server.process.kill()

        outcomes = together(server, kinds, strike)
        server.process.wait(STOP_LIMIT_S)
        server.until(lambda: not any(alive(pid) for pid in family), STOP_LIMIT_S)
    survived("kill -9 of supervisord", outcomes)


@pytest.mark.parametrize("victim", ["worker", "scheduler"])
def test_who_dies_meanwhile_is_replaced(survived: Survived, victim: str) -> None:
    kinds = [kind for kind in KINDS if kind.streams]
    with scene("--graceful-termination-timeout", str(GRACE_S), frontends=2) as house:
        server = house.server

        def strike(talks: list[Talk]) -> None:
            pid = house.pid(f"-m {victim}")
            server.process.send_signal(signal.SIGTERM)
            server.until(lambda: any("stopping; running" in line for line in server.log))
            os.kill(pid, signal.SIGKILL)
            assert not all(talk.over for talk in talks), "the texts are too short for this test"

        outcomes = together(server, kinds, strike)
        assert server.process.wait(STOP_LIMIT_S) == 0
    survived(f"SIGTERM, and kill -9 of the {victim}", outcomes)


def test_streams_of_different_lengths_end_with_their_last_token() -> None:
    with scene("--graceful-termination-timeout", str(GRACE_S)) as house:
        server = house.server

        def strike(talks: list[Talk]) -> None:
            server.process.send_signal(signal.SIGTERM)

        outcomes = together(server, LASTING, strike)
        assert server.process.wait(STOP_LIMIT_S) == 0
    for outcome, tokens in zip(outcomes, [10, 40, 160, 10, 40, 160], strict=True):
        assert outcome.error == ""
        assert outcome.events[-1] == "[DONE]"
        assert sum(outcome.kind.count(outcome.events).values()) == tokens


@pytest.mark.parametrize("grace_s", [0, 1, 3])
def test_what_takes_too_long_is_told_so(grace_s: int) -> None:
    """The grammar may still be under check when the grace is over."""
    numbers = {"type": "array", "items": {"type": "integer"}, "minItems": LONG_TOKENS}
    grammar = {"type": "json", "value": numbers}
    kinds = [
        *(kind.lasting(LONG_TOKENS) for kind in STREAMS),
        generate("grammar", "Count", max_new_tokens=LONG_TOKENS, grammar=grammar),
        generate_stream("grammar, stream", "Count", max_new_tokens=LONG_TOKENS, grammar=grammar),
    ]
    with scene("--graceful-termination-timeout", str(grace_s)) as house:
        server = house.server

        def strike(talks: list[Talk]) -> None:
            server.process.send_signal(signal.SIGTERM)

        outcomes = together(server, kinds, strike)
        assert server.process.wait(STOP_LIMIT_S) == 0
    for outcome in outcomes:
        assert "The server is shutting down" in outcome.error, outcome.kind.name
        assert outcome.broken == ""
