"""The whole scheduler against workers and front ends that keep to the protocol, in memory.

Random lengths, shared prefixes, lost messages, cancellations, preemption for want of blocks, dying
workers, a dying scheduler: every sequence ends once, its tokens are exactly those that its ids
determine, and every block comes back.
"""

import random
from typing import Any

import pytest

from common.messages import FrontendGone, SequenceSpec, Tokens, frontend_of, topic_of
from common.sockets import encode, frontend_identity, worker_identity
from scheduler.metrics import Metrics
from scheduler.loop import Loop
from scheduler.parts import Parts
from scheduler.requests import State
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
        house.parts = Parts(house.settings, self.rng.getrandbits(63), house.metrics, house.clock)
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
            worker.subscribed = {
                f.number for f in self.frontends if self.rng.random() >= self.deaf
            }
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


@pytest.mark.parametrize("seed", range(3))
def test_everything_ends_once_with_the_right_tokens(seed: int) -> None:
    world = World(seed, replicas=2, frontends=2, blocks=200)
    for _ in range(40):
        world.submit()
        for _ in range(world.rng.randrange(4)):
            world.tick()
    world.settle()
    world.verify(complete=True)
    assert world.house.metric("millrace_prefix_hit_tokens_total") > 0
    assert sum(world.house.ended().values()) == 40
    assert set(world.house.ended()) <= {"length", "eos_token"}


@pytest.mark.parametrize("seed", range(3))
def test_with_few_blocks_everybody_gets_through(seed: int) -> None:
    """Room for one sequence of the greatest length and little else."""
    world = World(seed, replicas=1, frontends=1, blocks=12, max_batch_prefill_tokens=64)
    for _ in range(20):
        world.submit(priority=world.rng.randrange(2))
    world.settle()
    world.verify(complete=True)
    assert world.house.metric("millrace_preemptions_total") > 0


@pytest.mark.parametrize("caching", [True, False])
def test_chaos(caching: bool) -> None:
    world = World(
        7, replicas=2, frontends=3, blocks=30, prefix_caching=caching, max_batch_size=8
    )
    world.loss, world.deaf = 0.2, 0.2
    rng = world.rng
    for turn in range(1200):
        if rng.random() < 0.06:
            world.submit(priority=rng.choice([0, 0, 1]), timeout_s=rng.choice([0.0, 0.0, 0.5]))
        if rng.random() < 0.02:
            frontend = rng.choice(world.frontends)
            if frontend.live:
                reason = rng.choice(["client_gone", "stop_sequence", "deadline"])
                frontend.cancel(rng.choice([*frontend.live]), reason)
        if turn % 300 == 150:
            world.start_worker(rng.randrange(2))
        if turn == 500:
            world.kill_worker(0)
        if turn == 900:
            world.start_worker(0)
        world.tick()
        world.house.check()
    world.loss = 0.05
    world.settle()
    world.verify(complete=False)
    ended = world.house.ended()
    assert world.house.metric("millrace_recovered_sequences_total") > 0
    assert ended["length"] > 10
    assert ended["client_gone"] > 0


def test_a_new_scheduler_takes_over() -> None:
    world = World(3, replicas=2, frontends=2, blocks=100)
    for _ in range(20):
        world.submit()
    for _ in range(40):
        world.tick()
    assert 0 < world.live
    world.replace_scheduler()
    # Fake actors hold the old link's queues by House, so they speak to the new one from here on.
    for _ in range(5):
        world.submit()
    world.settle()
    world.verify(complete=True)


def test_a_dead_front_end_takes_nothing_along() -> None:
    world = World(5, replicas=1, frontends=2, blocks=60)
    for _ in range(20):
        world.submit()
    for _ in range(30):
        world.tick()
    dead = world.frontends.pop()
    assert dead.live
    for sequence in [*dead.live, *dead.ends]:
        del world.specs[sequence]
    parent = b"the parent of the front ends"
    world.house.link.frontend_inbox.append((parent, encode(FrontendGone(4000 + dead.number))))
    world.tick()
    left = world.house.parts.requests.of_frontend(dead.number)
    assert all(record.state is State.CANCELLING for record in left)
    world.settle()
    world.verify(complete=True)
    assert world.house.ended()["frontend_gone"] > 0
