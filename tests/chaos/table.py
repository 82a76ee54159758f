"""The table of what every fault did to the streams that ran."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from tests.chaos.kinds import Kind
from tests.chaos.scene import Scene
from tests.chaos.talk import Outcome, together

HEAD = ("fault", "streams", "broken", "lost", "repeated", "pause p50 ms", "pause p99 ms")


@dataclass(frozen=True)
class Row:
    """One fault."""

    fault: str
    streams: int
    """Requests that were not to notice."""
    broken: int
    """Those that did not get their whole answer."""
    lost: int
    """Tokens that never came."""
    repeated: int
    """Tokens that came twice."""
    pause_ms: tuple[int, int]
    """Median and 99th percentile over the streams of the longest gap in each."""

    def cells(self) -> tuple[str, ...]:
        numbers = (self.streams, self.broken, self.lost, self.repeated, *self.pause_ms)
        return (self.fault, *map(str, numbers))


@dataclass(frozen=True)
class Truth:
    """What the undisturbed run gave, by the name of the request."""

    answers: dict[str, Any]
    counts: dict[str, Counter[Any]]

    def differs(self, outcome: Outcome) -> str:
        """What is wrong with an outcome; empty if it is exactly what it was to be."""
        if outcome.error:
            return f"{outcome.kind.name}: {outcome.error}"
        answer = answer_of(outcome)
        expected = self.answers[outcome.kind.name]
        if outcome.kind.read(answer) != expected:
            return f"{outcome.kind.name}: {outcome.kind.read(answer)} instead of {expected}"
        if outcome.kind.count(answer) != self.counts[outcome.kind.name]:
            return f"{outcome.kind.name}: its tokens are miscounted"
        return ""

    def row(self, fault: str, outcomes: list[Outcome]) -> Row:
        """The line of a fault; of those requests that were not its victims."""
        lost = repeated = 0
        for outcome in outcomes:
            expected = self.counts[outcome.kind.name]
            got = Counter() if outcome.error else outcome.kind.count(answer_of(outcome))
            lost += sum((expected - got).values())
            repeated += sum((got - expected).values())
        pauses = sorted(outcome.pause_s for outcome in outcomes if outcome.kind.streams)
        return Row(
            fault=fault,
            streams=len(outcomes),
            broken=sum(bool(self.differs(outcome)) for outcome in outcomes),
            lost=lost,
            repeated=repeated,
            pause_ms=(_percentile(pauses, 0.5), _percentile(pauses, 0.99)),
        )


def answer_of(outcome: Outcome) -> Any:
    return outcome.events if outcome.kind.streams else outcome.document


def truth_of(scene: Scene, kinds: list[Kind]) -> Truth:
    """Let these run, all at once and undisturbed, and believe them."""
    outcomes = together(scene.server, kinds)
    for outcome in outcomes:
        assert not outcome.error, (outcome.kind.name, outcome.error)
    return Truth(
        {o.kind.name: o.kind.read(answer_of(o)) for o in outcomes},
        {o.kind.name: o.kind.count(answer_of(o)) for o in outcomes},
    )


def _percentile(values: list[float], share: float) -> int:
    return round(1000 * values[min(int(share * len(values)), len(values) - 1)]) if values else 0


def render(rows: list[Row]) -> str:
    """As text, one line for each fault."""
    cells = [HEAD, *(row.cells() for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(HEAD))]
    return "\n".join(
        "  ".join(
            text.ljust(width) if i == 0 else text.rjust(width)
            for i, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in cells
    )
