"""Kept streams under random comings and goings: the account is right, and nothing is left."""

import random

import msgspec
import pytest

from common.messages import (
    Alive,
    Cancel,
    Delivered,
    FrontendGone,
    Keep,
    Progress,
    Resume,
    Resumed,
    Submit,
)
from scheduler import streams
from scheduler.replicas import Replica
from scheduler.requests import Record, State
from tests.scheduler.harness import FRONTEND, House, spec, started

GRACE_S = 3.0


class World:
    """Front ends and workers that do anything they may, in any order."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.house: House = started(
            frontends=2,
            replicas=2,
            blocks=self.rng.choice([12, 101]),
            max_concurrent_requests=self.rng.choice([2, 50]),
            sse_resume_grace=GRACE_S,
            sse_resume_streams=self.rng.choice([1, 5]),
        )
        self.frontends = {FRONTEND: 100, FRONTEND + 1: 101}
        """The process ids, by number."""
        self.live: dict[int, int] = {}
        """The front end of each sequence that has not been let go."""
        self.tickets: list[str] = []
        self.count = 0

    def submit(self, frontend: int, message: Submit) -> None:
        self.house.from_frontend(message, frontend)
        self.live[message.spec.id] = frontend
        self.house.turn()
        if self.rng.random() < 0.5:
            self.work()
            self.deliver()

    def begin(self) -> None:
        """A request of one to three runs, some of which need much room."""
        rng, frontend = self.rng, self.rng.choice(list(self.frontends))
        self.tickets.append(f"{len(self.tickets):032x}")
        runs = rng.randint(1, 3)
        for run in range(runs):
            self.count += 1
            memo = b"m" * rng.choice([0, 5000]) if run == 0 else b""
            keep = Keep(self.tickets[-1], "owner", run, runs, memo)
            wanted = spec(self.count, 20, rng.choice([1, 3, 150]), frontend=frontend)
            self.submit(frontend, Submit(wanted, keep=keep))

    def take_up(self) -> None:
        """A client comes back to any front end."""
        ticket, frontend = self.rng.choice(self.tickets[-5:]), self.rng.choice([*self.frontends])
        self.house.forget()
        self.house.from_frontend(Resume(1, ticket, "owner"), frontend)
        self.house.turn()
        found = self.house.said(Resumed, frontend)[-1]
        for run, kept in enumerate(found.runs):
            if kept.tokens.finish:
                continue
            self.count += 1
            memo = found.memo if run == 0 else b""
            keep = Keep(ticket, "owner", run, len(found.runs), memo, kept.tokens.logprobs)
            own = msgspec.structs.replace(kept.spec, id=frontend << 32 | self.count)
            self.submit(frontend, Submit(own, generated_ids=kept.tokens.ids, keep=keep))

    def deliver(self) -> None:
        """All ends so far reach their front ends."""
        for sequence in list(self.live):
            record = self.house.parts.requests.get(sequence)
            if record is not None and record.state is State.FINISHED:
                frontend = self.live.pop(sequence)
                self.house.from_frontend(Delivered(sequence, success=True), frontend)
        self.house.turn()

    def let_go(self) -> None:
        """A client leaves."""
        sequence = self.rng.choice(list(self.live))
        frontend = self.live.pop(sequence)
        reason = self.rng.choice(["client_gone", "client_gone", "stop_sequence", "deadline"])
        self.house.from_frontend(Cancel(sequence, reason), frontend)
        self.house.from_frontend(Delivered(sequence, success=False), frontend)

    def lose_frontend(self) -> None:
        """Another one takes its place."""
        number = self.rng.choice(list(self.frontends))
        pid = self.frontends.pop(number)
        self.house.from_frontend(FrontendGone(pid))
        self.live = {sequence: f for sequence, f in self.live.items() if f != number}
        new = max([number, *self.frontends]) + 1
        self.frontends[new] = pid + 2
        self.house.hello(new, pid + 2)

    def work(self) -> None:
        """A step of each worker; now and then a sequence fails in it."""
        for replica in self.house.parts.replicas:
            items = [self.progress(record.id) for record in self.able(replica)]
            released = [r.id for r in replica.running.values() if r.state is not State.DISPATCHED]
            self.house.report(*items, replica=replica.number, released=released)

    def able(self, replica: Replica) -> list[Record]:
        found = []
        for record in replica.running.values():
            lease = replica.leases.get(record.id)
            assert lease is not None
            room = lease.capacity - max(record.known_tokens - 1, lease.computed)
            if record.state is State.DISPATCHED and room > 0 and self.rng.random() < 0.8:
                found.append(record)
        return found

    def progress(self, sequence: int) -> Progress:
        record = self.house.record(sequence)
        if self.rng.random() < 0.02:
            return self.house.token(sequence, error="no memory")
        last = len(record.generated) + 1 == record.spec.max_new_tokens
        return self.house.token(sequence, 7, finish="length" if last else "")

    def check(self) -> None:
        house, kept = self.house, self.house.parts.streams
        house.check()
        assert kept._bytes == sum(stream.bytes for stream in kept._streams.values())
        assert kept._tickets == {s.number: ticket for ticket, s in kept._streams.items()}
        for stream in kept._streams.values():
            assert all(house.parts.requests.get(sequence) for sequence in stream.live)

    def settle(self) -> None:
        """All clients leave, and nobody comes back."""
        while self.live:
            self.let_go()
        for _ in range(80):
            for frontend in self.frontends:
                self.house.from_frontend(Alive(frontend), frontend)
            self.work()
            self.house.turn(after_s=1.0)
            self.check()


@pytest.mark.parametrize("seed", range(12))
def test_nothing_is_left(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MOST_BYTES", 20_000)
    world = World(seed)
    acts = [world.begin, world.work, world.work, world.deliver, world.take_up, world.let_go]
    for _ in range(200):
        act = world.rng.choice(acts)
        chance = world.rng.random()
        if chance < 0.03:
            world.lose_frontend()
        elif chance < 0.1:
            world.house.turn(after_s=world.rng.choice([0.1, 1.0, GRACE_S]))
        elif (act != world.let_go or world.live) and (act != world.take_up or world.tickets):
            act()
        world.house.turn()
        world.check()
    world.settle()
    parts = world.house.parts
    assert (len(parts.requests), len(parts.queue), parts.requests.live) == (0, 0, 0)
    assert (len(parts.streams._streams), parts.streams._bytes) == (0, 0)
