"""A scheduler without sockets: fake link, fake clock, and short words for messages."""

from collections import deque
from collections.abc import Iterator
from typing import Any

import msgspec

from common.messages import (
    PROTOCOL_VERSION,
    Dispatch,
    FromFrontend,
    FromWorker,
    Heartbeat,
    Hello,
    Progress,
    Ready,
    SequenceSpec,
    SequenceTokens,
    StepReport,
    StepTiming,
    Submit,
)
from common.sampling import SamplingParameters
from common.settings import Settings
from common.sockets import (
    FROM_FRONTEND,
    FROM_WORKER,
    HEARTBEAT_S,
    encode,
    frontend_identity,
    worker_identity,
)
from common.spans import Spans
from scheduler.loop import Loop
from scheduler.metrics import Metrics
from scheduler.parts import Parts
from scheduler.requests import Record
from scheduler.tracing import SequenceTracer

EPOCH = 77
WALL_NS = 1_800_000_000_000_000_000
"""Wall-clock time, which stands still."""
FRONTEND = 5
TIMING = StepTiming(
    prefill_tokens=0,
    decode_tokens=1,
    forward_s=0.004,
    sample_s=0.001,
    publish_s=0.0005,
    total_s=0.006,
)


class Clock:
    """Time that passes only when told."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class FakeLink:
    """Keeps what is sent; hands over what was put in. Everything goes through the codecs."""

    def __init__(self) -> None:
        self.worker_inbox: deque[tuple[bytes, bytes]] = deque()
        self.frontend_inbox: deque[tuple[bytes, bytes]] = deque()
        self.worker_sent: list[tuple[bytes, Any]] = []
        self.frontend_sent: list[tuple[bytes, Any]] = []
        self.unreachable: set[bytes] = set()
        self.waits: list[float] = []

    def wait(self, timeout_s: float) -> None:
        self.waits.append(timeout_s)

    def from_workers(self, limit: int) -> Iterator[tuple[bytes, FromWorker]]:
        for _ in range(min(limit, len(self.worker_inbox))):
            identity, frame = self.worker_inbox.popleft()
            yield identity, FROM_WORKER.decode(frame)

    def from_frontends(self, limit: int) -> Iterator[tuple[bytes, FromFrontend]]:
        for _ in range(min(limit, len(self.frontend_inbox))):
            identity, frame = self.frontend_inbox.popleft()
            yield identity, FROM_FRONTEND.decode(frame)

    def to_worker(self, identity: bytes, message: msgspec.Struct) -> bool:
        if identity in self.unreachable:
            return False
        self.worker_sent.append((identity, message))
        return True

    def to_frontend(self, identity: bytes, message: msgspec.Struct) -> bool:
        if identity in self.unreachable:
            return False
        self.frontend_sent.append((identity, message))
        return True


class FakeProcesses:
    """Remembers who is held and who was killed; tests put into ``dead`` who has ended."""

    def __init__(self) -> None:
        self.held: list[int] = []
        self.killed: list[int] = []
        self.dead: list[int] = []

    def hold(self, pid: int) -> None:
        self.held.append(pid)

    def kill(self, pid: int) -> None:
        assert pid in self.held
        self.killed.append(pid)

    def forget(self, pid: int) -> None:
        if pid in self.held:
            self.held.remove(pid)

    def ended(self) -> list[int]:
        dead, self.dead = self.dead, []
        return dead


def settings(**changes: Any) -> Settings:
    values: dict[str, Any] = {"model_id": "m", "model_dir": "/m", "max_batch_prefill_tokens": 256}
    return Settings(**{**values, **changes})


def sequence_id(counter: int, frontend: int = FRONTEND) -> int:
    return frontend << 32 | counter


def spec(
    counter: int,
    prompt: int | list[int] = 20,
    new: int = 40,
    frontend: int = FRONTEND,
    **more: Any,
) -> SequenceSpec:
    """``prompt`` is a list of ids, or a length: then no two counters share a prefix."""
    ids = prompt if isinstance(prompt, list) else [counter * 1000 + i for i in range(prompt)]
    return SequenceSpec(sequence_id(counter, frontend), ids, new, SamplingParameters(), **more)


class House:
    """The scheduler with everything around it under the test's control."""

    def __init__(self, tracing: bool = False, **changes: Any) -> None:
        self.clock = Clock()
        self.traced: list[Spans] = []
        self.pulses: list[float] = []
        """When the scheduler gave signs of life."""
        tracer = (
            SequenceTracer(self.traced.append, self.clock, lambda: WALL_NS) if tracing else None
        )
        self.link = FakeLink()
        self.settings = settings(**changes)
        self.metrics = Metrics(self.settings)
        self.processes = FakeProcesses()
        self.frontend_processes = FakeProcesses()
        self.parts = Parts(
            self.settings,
            EPOCH,
            self.metrics,
            self.processes,
            self.frontend_processes,
            self.clock,
            tracer,
            lambda: self.pulses.append(self.clock.now),
        )
        self.loop = Loop(self.parts, self.link, self.clock)
        self.incarnations: dict[int, int] = {}
        self.steps = 0

    # --- in -----------------------------------------------------------------------------------

    def turn(self, *, after_s: float = 0.0, halted: bool = False) -> None:
        """After so much time, in which the loop has turned as it does, unless it was halted."""
        while after_s > HEARTBEAT_S and not halted:
            self.clock.now += HEARTBEAT_S
            after_s -= HEARTBEAT_S
            self.loop.turn()
        self.clock.now += after_s
        self.loop.turn()

    def from_frontend(self, message: msgspec.Struct, frontend: int = FRONTEND) -> None:
        self.link.frontend_inbox.append((frontend_identity(frontend), encode(message)))

    def from_worker(self, message: msgspec.Struct, replica: int = 0) -> None:
        identity = self.identity(replica)
        self.link.worker_inbox.append((identity, encode(message)))

    def hello(self, frontend: int = FRONTEND, pid: int = 100) -> None:
        self.from_frontend(Hello(PROTOCOL_VERSION, frontend, pid), frontend)
        self.turn()

    def ready(
        self,
        blocks: int = 101,
        replica: int = 0,
        incarnation: int = 9,
        epoch: int = 0,
        **facts: Any,
    ) -> None:
        """``blocks`` counts block 0, too."""
        self.incarnations[replica] = incarnation
        self.from_worker(
            Ready(PROTOCOL_VERSION, replica, incarnation, 1, blocks, epoch, **facts), replica
        )
        self.turn()

    def submit(self, counter: int, *args: Any, **kwargs: Any) -> int:
        """Submit and turn; the sequence id. Keywords of Submit are told from those of spec."""
        own = {"attempt", "generated_ids", "priority", "timeout_s", "queue_timeout_s", "keep"}
        outer = {key: kwargs.pop(key) for key in own & kwargs.keys()}
        message = Submit(spec(counter, *args, **kwargs), **outer)
        self.from_frontend(message, message.spec.id >> 32)
        self.turn()
        return message.spec.id

    def report(
        self,
        *items: Progress,
        replica: int = 0,
        epoch: int = EPOCH,
        incarnation: int | None = None,
        timing: StepTiming | None = TIMING,
        **more: Any,
    ) -> None:
        self.steps += 1
        if incarnation is None:
            incarnation = self.incarnations[replica]
        self.link.worker_inbox.append(
            (
                worker_identity(replica, incarnation),
                encode(
                    StepReport(
                        epoch, incarnation, 1, self.steps, list(items), timing=timing, **more
                    )
                ),
            )
        )
        self.turn()

    def token(self, sequence: int, *ids: int, finish: str = "", error: str = "") -> Progress:
        """The next tokens of a running sequence, with everything before them computed."""
        record = self.record(sequence)
        tokens = SequenceTokens(
            sequence,
            record.attempt,
            len(record.generated),
            list(ids),
            [0.0] * len(ids),
            finish=finish,  # type: ignore[arg-type]
        )
        return Progress(tokens, record.known_tokens + max(len(ids) - 1, 0), error)

    def run_to(self, sequence: int, generated: int, replica: int = 0) -> None:
        """Report single tokens until the sequence has so many."""
        for _ in range(len(self.record(sequence).generated), generated):
            self.report(self.token(sequence, 7), replica=replica)
        assert len(self.record(sequence).generated) == generated

    def from_worker_beat(self, replica: int = 0) -> None:
        self.from_worker(Heartbeat(EPOCH, self.incarnations[replica], self.steps), replica)

    def from_frontend_bad_frame(self) -> None:
        """What the link does about a frame that does not decode."""
        self.metrics.bad_frames.labels("requests").inc()

    # --- out ----------------------------------------------------------------------------------

    def identity(self, replica: int = 0) -> bytes:
        return worker_identity(replica, self.incarnations[replica])

    def record(self, sequence: int) -> Record:
        record = self.parts.requests.get(sequence)
        assert record is not None
        return record

    def said(self, kind: type, frontend: int = FRONTEND) -> list[Any]:
        """Messages of one kind to a front end since the last ``forget``."""
        identity = frontend_identity(frontend)
        return [m for to, m in self.link.frontend_sent if to == identity and isinstance(m, kind)]

    def dispatches(self, replica: int = 0) -> list[Dispatch]:
        return [
            m
            for to, m in self.link.worker_sent
            if to.startswith(b"W%d." % replica) and isinstance(m, Dispatch)
        ]

    def added(self, replica: int = 0) -> list[int]:
        """Sequences added to a replica since the last ``forget``, in order."""
        return [new.spec.id for d in self.dispatches(replica) for new in d.add]

    def forget(self) -> None:
        self.link.worker_sent.clear()
        self.link.frontend_sent.clear()

    def metric(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    def next_wait(self) -> float:
        """How long the loop would wait now."""
        self.turn()
        self.turn()
        return self.link.waits[-1]

    def check(self) -> None:
        """The invariant of every replica."""
        for replica in self.parts.replicas:
            assert replica.leases.check() == ""
            assert set(replica.running) >= set(replica.hungry)
            assert replica.backlog_tokens == sum(r.prefill_left for r in replica.running.values())

    def ended(self) -> dict[str, int]:
        """Ends by reason, from the metrics."""
        found = {}
        for family in self.metrics.registry.collect():
            if family.name == "millrace_sequences_ended":
                for sample in family.samples:
                    if sample.name.endswith("_total"):
                        found[sample.labels["reason"]] = int(sample.value)
        return found


def started(*, frontends: int = 1, replicas: int = 1, blocks: int = 101, **changes: Any) -> House:
    """A house with front ends that said Hello and replicas that are ready."""
    house = House(num_replicas=replicas, **changes)
    for number in range(frontends):
        house.hello(FRONTEND + number, 100 + number)
    for replica in range(replicas):
        house.ready(blocks, replica, incarnation=9 + replica)
    house.forget()
    return house
