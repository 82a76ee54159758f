"""The link against random loss, delay, repetition and recovery."""

import random

from hypothesis import given
from hypothesis import strategies as st

from common.messages import (
    Accepted,
    Missing,
    Recover,
    Replay,
    SequenceTokens,
    Submit,
)
from tests.frontend.wire import Wire


class _Scheduler:
    """Scheduler and worker: each sequence gets 0, 1, 2 …; what is published may go astray.

    The scheduler knows what its worker has made, and answers Missing.
    """

    def __init__(self, wire: Wire, length: int, chance: random.Random) -> None:
        self.wire = wire
        self.length = length
        self.chance = chance
        self.attempts: dict[int, int] = {}
        self.made: dict[int, int] = {}
        self.late: list[SequenceTokens] = []
        self.answered = 0
        self.epoch = 1

    def schedule(self) -> None:
        """Handle what the link has said since the last time."""
        while self.answered < len(self.wire.sent):
            message = self.wire.sent[self.answered]
            self.answered += 1
            if isinstance(message, Submit):
                self.attempts[message.spec.id] = message.attempt
                self.made[message.spec.id] = len(message.generated_ids)
                self.wire.link.receive(Accepted(id=message.spec.id, attempt=message.attempt))
            elif isinstance(message, Missing) and message.index < self.made[message.id]:
                part = self.span(message.id, message.index, self.made[message.id])
                self.wire.link.receive(Replay(items=[part]))

    def work(self, sequence: int, *, lossy: bool) -> None:
        """One step: up to three tokens, published, lost, or kept for later."""
        made = self.made[sequence]
        count = min(self.chance.randint(0, 3), self.length - made)
        if count > 0:
            self.made[sequence] = made + count
            part = self.span(sequence, made, made + count)
            fate = self.chance.random()
            if not lossy or fate < 0.5:
                self.wire.tokens(part)
            if fate > 0.7:
                self.late.append(part)
        if self.late and self.chance.random() < 0.5:
            self.wire.tokens(self.late.pop(self.chance.randrange(len(self.late))))

    def trouble(self, sequences: list[int]) -> None:
        """Now and then a worker or the scheduler is lost."""
        if self.chance.random() < 0.05:
            self.wire.link.receive(Recover(ids=sequences))
        if self.chance.random() < 0.03:
            self.epoch += 1

    def span(self, sequence: int, first: int, end: int) -> SequenceTokens:
        return SequenceTokens(
            id=sequence,
            attempt=self.attempts[sequence],
            index=first,
            ids=list(range(first, end)),
            logprobs=[-1.0] * (end - first),
            finish="length" if end == self.length else "",
        )


@given(st.integers(0, 2**32), st.integers(1, 40))
def test_random_loss_repetition_and_recovery_lose_nothing(seed: int, length: int) -> None:
    """In the end every consumer has got 0, 1, 2 … once."""
    wire = Wire()
    other = _Scheduler(wire, length, random.Random(seed))
    boxes = [wire.submit() for _ in range(2)]
    got: dict[int, list[int]] = {box.spec.id: [] for box in boxes}
    for turn in range(260):
        troubled = turn < 60
        other.schedule()
        for box in boxes:
            other.work(box.spec.id, lossy=troubled)
        if troubled:
            other.trouble(list(got))
        wire.clock.now += 1.0
        wire.status(epoch=other.epoch)
        wire.link.beat()
        for box in boxes:
            got[box.spec.id] += [token for part in box.take() for token in part.ids]
    for box in boxes:
        assert got[box.spec.id] == list(range(length))
        assert box.finish == "length"
        assert box.ids == got[box.spec.id]
