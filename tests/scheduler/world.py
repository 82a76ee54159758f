"""One scheduler among workers and front ends that keep to the protocol, in memory.

``python -m tests.scheduler.world 0 100`` runs ``chaos`` for a range of seeds, which is more than
the tests can afford.
"""

import logging
import random
import sys
from typing import Any

from common.messages import SequenceSpec, Tokens, frontend_of, topic_of
from common.sockets import encode, frontend_identity, worker_identity
from scheduler.loop import Loop
from scheduler.metrics import Metrics
from scheduler.parts import Parts
from tests.scheduler.actors import FakeFrontend, FakeWorker, expected_output, random_spec
from tests.scheduler.harness import FakeLink, House

TICK_S = 0.01


class World:
    """One scheduler, some workers and front ends, and lossy PUB/SUB between them."""

    def __init__(
        self, seed: int, *, replicas: int, frontends: int, blocks: int, **changes: Any
    ) -> None:
        self.rng = random.Random(seed)
        self.house = House(num_replicas=replicas, max_concurrent_requests=500, **changes)
        self.blocks = blocks
        self.loss = 0.05
        self.deaf = 0.0
        """Chance per step that a worker does not know a front end's subscription."""
        self.workers: dict[int, FakeWorker] = {}
        self.frontends = [self._frontend(number) for number in range(1, frontends + 1)]
        for replica in range(replicas):
            self.start_worker(replica)
        self.count = 0
        self.specs: dict[int, SequenceSpec] = {}
        self.ticks = 0

    def _frontend(self, number: int) -> FakeFrontend:
        identity = frontend_identity(number)
        return FakeFrontend(
            number, lambda m: self.house.link.frontend_inbox.append((identity, encode(m)))
        )

    def start_worker(self, replica: int) -> None:
        """A new process; the old one, if there is one, is no more."""
        old = self.workers.get(replica)
        if old is not None:
            self.house.link.unreachable.add(worker_identity(replica, 0, old.incarnation))
        incarnation = self.rng.getrandbits(63)
        identity = worker_identity(replica, 0, incarnation)
        self.workers[replica] = FakeWorker(
            replica,
            incarnation,
            self.blocks,
            lambda m: self.house.link.worker_inbox.append((identity, encode(m))),
        )

    def kill_worker(self, replica: int) -> None:
        worker = self.workers.pop(replica)
        self.house.link.unreachable.add(worker_identity(replica, 0, worker.incarnation))

    def replace_scheduler(self) -> None:
        """The scheduler dies with everything that it knew; another one takes its sockets."""
        house = self.house
        house.link.worker_inbox.clear()
        house.link.frontend_inbox.clear()
        house.link.worker_sent.clear()
        house.link.frontend_sent.clear()
        unreachable = house.link.unreachable
        house.link = FakeLink()
        house.link.unreachable = unreachable
        house.metrics = Metrics(house.settings)
        house.parts = Parts(
            house.settings,
            self.rng.getrandbits(63),
            house.metrics,
            house.processes,
            house.frontend_processes,
            house.clock,
        )
        house.loop = Loop(house.parts, house.link, house.clock)

    def submit(self, longest: int = 150, **more: Any) -> int:
        frontend = self.rng.choice(self.frontends)
        self.count += 1
        spec = random_spec(self.rng, frontend.number << 32 | self.count, longest)
        self.specs[spec.id] = spec
        frontend.submit(spec, **more)
        return spec.id

    def tick(self) -> None:
        self.ticks += 1
        house = self.house
        house.turn(after_s=TICK_S)
        for identity, message in house.link.worker_sent:
            for worker in self.workers.values():
                if worker_identity(worker.replica, 0, worker.incarnation) == identity:
                    worker.inbox.append(message)
        house.link.worker_sent.clear()
        for worker in self.workers.values():
            worker.subscribed = {f.number for f in self.frontends if self.rng.random() >= self.deaf}
            if self.rng.random() < 0.8:
                self._publish(worker.step())
        for identity, message in house.link.frontend_sent:
            for frontend in self.frontends:
                if frontend_identity(frontend.number) == identity:
                    frontend.receive(message)
        house.link.frontend_sent.clear()
        if self.ticks % 100 == 0:
            for frontend in self.frontends:
                frontend.beat()

    def _publish(self, messages: list[Tokens]) -> None:
        by_number = {f.number: f for f in self.frontends}
        for message in messages:
            number = frontend_of(message.items[0].id)
            assert len(topic_of(number)) == 4
            if self.rng.random() >= self.loss:
                by_number[number].receive(message)

    @property
    def live(self) -> int:
        return sum(len(f.live) for f in self.frontends)

    def settle(self, limit: int = 20_000) -> None:
        """Tick until everything has ended, then check that nothing is left."""
        for _ in range(limit):
            if not self.live and not len(self.house.parts.requests):
                break
            self.tick()
        else:
            raise AssertionError(f"{self.live} sequences are stuck")
        self.house.check()
        for replica in self.house.parts.replicas:
            assert replica.leases.pool.leased == 0
            assert (replica.backlog_tokens, replica.most_tokens) == (0, 0)
            assert not replica.releasing
        assert self.house.parts.requests.live == 0
        assert len(self.house.parts.queue) == 0
        ends = {k: v for f in self.frontends for k, v in f.ends.items()}
        assert ends.keys() == self.specs.keys()

    def verify(self, *, complete: bool) -> None:
        """Outputs are what the ids determine; with ``complete`` all of it."""
        for frontend in self.frontends:
            for sequence, output in frontend.outputs.items():
                expected = expected_output(self.specs[sequence])
                if complete or frontend.ends[sequence] in ("length", "eos_token"):
                    assert output == expected
                else:
                    assert output == expected[: len(output)]


def chaos(seed: int, turns: int = 800) -> dict[str, int]:
    """Everything at once, under settings drawn from the seed; the ends by reason."""
    draw = random.Random(seed).choice
    world = World(
        seed,
        replicas=draw([1, 2, 3]),
        frontends=draw([1, 3]),
        blocks=draw([12, 16, 30, 100]),
        prefix_caching=draw([True, True, False]),
        max_batch_size=draw([None, 2, 8]),
        max_batch_prefill_tokens=draw([16, 64, 256]),
        waiting_served_ratio=draw([0.0, 0.3, 1.2]),
        max_waiting_tokens=draw([5, 20]),
    )
    world.loss, world.deaf = draw([0.0, 0.2, 0.6]), draw([0.0, 0.3])
    rng = world.rng
    for _ in range(turns):
        if rng.random() < 0.1:
            world.submit(priority=rng.choice([0, 0, 1]), timeout_s=rng.choice([0.0, 0.0, 0.5]))
        if rng.random() < 0.03:
            frontend = rng.choice(world.frontends)
            if frontend.live:
                reason = rng.choice(["client_gone", "stop_sequence", "deadline"])
                frontend.cancel(rng.choice([*frontend.live]), reason)
        if rng.random() < 0.006:
            world.start_worker(rng.randrange(len(world.house.parts.replicas)))
        if rng.random() < 0.003 and world.workers:
            world.kill_worker(rng.choice([*world.workers]))
        if rng.random() < 0.002:
            world.replace_scheduler()
        world.tick()
        world.house.check()
    for replica in range(len(world.house.parts.replicas)):
        if replica not in world.workers:
            world.start_worker(replica)
    world.loss = 0.05
    world.settle()
    world.verify(complete=False)
    return world.house.ended()


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    for number in range(int(sys.argv[1]), int(sys.argv[2])):
        sys.stdout.write(f"{number}: {chaos(number)}\n")
