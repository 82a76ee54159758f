"""A link without sockets: what it says is kept, what it hears is put in by hand."""

from typing import Any

import msgspec

from common.messages import (
    PROTOCOL_VERSION,
    ReplicaStatus,
    SequenceSpec,
    SequenceTokens,
    Status,
    Tokens,
)
from common.sampling import SamplingParameters
from frontend.link import Link
from frontend.mailbox import Mailbox
from tests.frontend.fakes import Clock


class Wire:
    """A link and what it has said."""

    def __init__(self, *, heard: bool = True, queue_timeout_s: float = 0.0) -> None:
        self.clock = Clock()
        self.sent: list[msgspec.Struct] = []
        self.link = Link(5, 99, self.sent.append, self.clock, queue_timeout_s)
        self.woken = 0
        if heard:
            self.status()

    def status(self, epoch: int = 1, **kwargs: Any) -> None:
        replicas = kwargs.pop("replicas", [ReplicaStatus(replica=0, ready=True)])
        version = kwargs.pop("version", PROTOCOL_VERSION)
        self.link.receive(Status(version=version, epoch=epoch, replicas=replicas, **kwargs))

    def submit(self, **kwargs: Any) -> Mailbox:
        spec = SequenceSpec(
            id=self.link.next_id(),
            prompt_ids=[1, 2],
            max_new_tokens=50,
            sampling=SamplingParameters(),
        )
        return self.link.submit(spec, self.wake, **kwargs)

    def wake(self) -> None:
        self.woken += 1

    def said(self, kind: type) -> list[Any]:
        return [message for message in self.sent if isinstance(message, kind)]

    def tokens(self, *items: SequenceTokens) -> None:
        self.link.tokens(Tokens(incarnation=1, step=1, items=list(items)))

    def pass_time(self, seconds: float, *, heard: bool = True) -> None:
        """Second by second, as the wires do it."""
        for _ in range(int(seconds)):
            self.clock.now += 1.0
            if heard:
                self.status()
            self.link.beat()


def item(box: Mailbox, index: int, count: int = 1, finish: str = "", attempt: int | None = None):
    return SequenceTokens(
        id=box.spec.id,
        attempt=box.attempt if attempt is None else attempt,
        index=index,
        ids=list(range(index, index + count)),
        logprobs=[-1.0] * count,
        finish=finish,
    )
