"""A link of lists and a clock that is told the time, for loops without sockets and waiting."""

from dataclasses import dataclass, field

from common.messages import NewSequence, SequenceSpec, StepReports
from common.sampling import SamplingParameters

ALICE, BOB = 5, 6


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class ListLink:
    clock: Clock
    inbox: list = field(default_factory=list)
    subscriptions: set[int] = field(default_factory=lambda: {ALICE, BOB})
    timeouts: list[float] = field(default_factory=list)
    reports: list = field(default_factory=list)
    """Those that come in one message one by one."""
    messages: int = 0
    published: list = field(default_factory=list)

    def receive(self, timeout_s):
        self.timeouts.append(timeout_s)
        arrived, self.inbox = self.inbox, []
        if not arrived:
            self.clock.now += timeout_s
        return arrived

    def subscribed(self, frontend):
        return frontend in self.subscriptions

    def publish(self, frontend, tokens):
        self.published.append((frontend, tokens))

    def report(self, message):
        self.messages += 1
        self.reports += message.reports if isinstance(message, StepReports) else [message]


def new(frontend: int, counter: int, count: int = 3, *, blocks=None, **options) -> NewSequence:
    spec = SequenceSpec(frontend << 32 | counter, [1, 2, 3], count, SamplingParameters(), **options)
    first = 1 + 2 * counter
    return NewSequence(spec, 0, [], [first, first + 1] if blocks is None else blocks)
