"""The whole scheduler against workers and front ends that keep to the protocol, in memory.

Random lengths, shared prefixes, lost messages, cancellations, preemption for want of blocks, dying
workers, a dying scheduler: every sequence ends once, its tokens are exactly those that its ids
determine, and every block comes back.
"""

import pytest

from common.messages import FrontendGone
from common.sockets import encode
from scheduler.requests import State
from tests.scheduler.world import World, chaos


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
    world = World(7, replicas=2, frontends=3, blocks=30, prefix_caching=caching, max_batch_size=8)
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


@pytest.mark.parametrize("seed", [1, 2])
def test_more_chaos(seed: int) -> None:
    assert sum(chaos(seed, turns=300).values()) > 5


def test_a_new_scheduler_takes_over() -> None:
    world = World(3, replicas=2, frontends=2, blocks=100)
    for _ in range(20):
        world.submit()
    for _ in range(40):
        world.tick()
    assert world.live > 0
    world.replace_scheduler()
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
