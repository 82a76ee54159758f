"""Requests that break the worker that runs them: they fail alone, everybody else's text goes on."""

from collections.abc import Iterator

import pytest

from tests.chaos.conftest import Survived
from tests.chaos.kinds import EXIT, HANG, KINDS, MEMORY, SLEEP, Kind
from tests.chaos.scene import Scene, Watch, scene
from tests.chaos.table import answer_of
from tests.chaos.talk import Outcome, Talk, together

STREAM, WHOLE = KINDS[0], KINDS[1]
GUIDED = next(kind for kind in KINDS if kind.name == "grammar")
DIED = "Request failed during generation: the worker died 3 times while it ran, the last time alone"
FAILED = "Request failed during generation: no memory was left for a step of this request"


@pytest.fixture(scope="module")
def alone() -> Iterator[Scene]:
    with scene() as made:
        yield made


def beside(made: Scene, *victims: Kind) -> tuple[list[Outcome], list[Outcome]]:
    """Everybody's outcome and the victims', which arrive while all the others run."""
    late: list[Talk] = []

    def strike(talks: list[Talk]) -> None:
        late.extend(Talk(made.server, victim) for victim in victims)

    outcomes = together(made.server, KINDS, strike)
    return outcomes, [talk.wait() for talk in late]


def assert_failed(outcome: Outcome, sentence: str) -> None:
    """With 424, or with the event that ends a stream; ``sentence`` is how its text begins."""
    assert outcome.broken == ""
    assert outcome.status == (200 if outcome.kind.streams else 424), outcome
    document = outcome.events[-1] if outcome.kind.streams else outcome.document
    assert document["error"].startswith(sentence), document
    assert document["error_type"] == "generation"


def test_a_request_without_memory(alone: Scene, survived: Survived) -> None:
    worker = alone.pid("-m worker")
    outcomes, victims = beside(alone, *(k.marked(MEMORY) for k in (STREAM, WHOLE, GUIDED)))
    alone.settle()
    survived("MemoryError in the steps of 3 others", outcomes)
    for victim in victims:
        assert_failed(victim, FAILED)
    assert alone.pid("-m worker") == worker
    assert alone.metric("millrace_replicas_lost_total") == 0


def test_a_poisonous_request(alone: Scene, survived: Survived) -> None:
    with Watch(alone.server) as health:
        outcomes, (victim,) = beside(alone, STREAM.marked(EXIT))
        alone.settle()
    survived("a request that ends its worker", outcomes)
    assert_failed(victim, DIED)
    assert health.seen["/health/live"] == {200}
    assert health.seen["/health/ready"] == {200, 503}
    assert alone.metric("millrace_poisonous_sequences_total") == 1
    assert alone.metric("millrace_replicas_lost_total") == 3


def test_a_request_that_hangs_its_worker(alone: Scene, survived: Survived) -> None:
    with Watch(alone.server) as health:
        outcomes, (victim,) = beside(alone, GUIDED.marked(HANG))
        alone.settle()
    survived("a request that hangs its worker", outcomes)
    assert_failed(victim, DIED)
    assert health.seen["/health/live"] == {200}
    assert health.seen["/health/progress"] == {200, 503}
    assert alone.metric("millrace_replicas_hung_total") == 3
    assert alone.metric("millrace_poisonous_sequences_total") == 2


def test_a_request_whose_steps_take_long(alone: Scene, survived: Survived) -> None:
    """Last, because the scheduler waits longer for a worker that has had long steps."""
    lost = alone.metric("millrace_replicas_lost_total")
    slow = next(kind for kind in KINDS if kind.name == "chat, stream").marked(SLEEP).lasting(6)
    outcomes, (victim,) = beside(alone, slow)
    alone.settle()
    survived("a request with steps of a second", outcomes)
    assert victim.error == ""
    assert sum(victim.kind.count(answer_of(victim)).values()) == 6
    assert alone.metric("millrace_replicas_lost_total") == lost
