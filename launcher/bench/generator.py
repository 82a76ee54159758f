"""Keeps a server busy: so many requests at once (closed loop), or so many a second (open loop).

In a closed loop a slow server is asked less; in an open loop arrivals do not care, as users do
not. Both end after a number of requests or a time, whichever comes first: then nothing new is sent,
and what runs is waited for, each request up to the client's own limit.
"""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import gevent

from launcher.bench.client import Outcome
from launcher.bench.scenarios import Work

Send = Callable[[Work], Outcome]


@dataclass(frozen=True)
class Closed:
    """``concurrency`` clients, each sends its next request when it has its answer."""

    concurrency: int


@dataclass(frozen=True)
class Open:
    """Arrivals of a Poisson process, ``rate`` per second."""

    rate: float
    seed: int = 0


@dataclass
class Run:
    """What came of it."""

    outcomes: list[Outcome] = field(default_factory=list)
    began_s: float = 0.0
    """By the client's clock."""
    wall_s: float = 0.0
    late_s: float = 0.0
    """Open loop: by how much the latest request was sent too late, for want of CPU here."""


def run(
    load: Closed | Open,
    works: list[Work],
    send: Send,
    *,
    duration_s: float | None = None,
    done: Callable[[Outcome], None] = lambda outcome: None,
    clock: Callable[[], float] = time.perf_counter,
    pause: Callable[[float], None] = gevent.sleep,
) -> Run:
    """Send ``works``; returns when every request that was begun has ended."""
    result = Run(began_s=clock())
    end_s = None if duration_s is None else result.began_s + duration_s

    def one(work: Work) -> None:
        outcome = send(work)
        result.outcomes.append(outcome)
        done(outcome)

    waiting = _until(end_s, works, clock)
    if isinstance(load, Closed):

        def client() -> None:
            for work in waiting:
                one(work)

        _join([gevent.spawn(client) for _ in range(min(load.concurrency, len(works)))])
    else:
        rng = random.Random(load.seed)  # noqa: S311 - not a secret
        due_s = result.began_s
        begun = []
        for work in works:
            due_s += rng.expovariate(load.rate)
            if end_s is not None and due_s >= end_s:
                pause(max(0.0, end_s - clock()))
                break
            pause(max(0.0, due_s - clock()))
            result.late_s = max(result.late_s, clock() - due_s)
            begun.append(gevent.spawn(one, work))
        _join(begun)
    result.wall_s = clock() - result.began_s
    return result


def _until(end_s: float | None, works: list[Work], clock: Callable[[], float]) -> Iterator[Work]:
    """Work for whoever asks next, until it is too late to begin."""
    for work in works:
        if end_s is not None and clock() >= end_s:
            return
        yield work


def _join(greenlets: list[gevent.Greenlet]) -> None:
    """Wait for all; an error of ours ends the run."""
    gevent.joinall(greenlets, raise_error=True)
