"""Several faults at once, in an order drawn by chance: nobody notices more than a pause."""

import os
import random
import signal
import time

import pytest

from tests.chaos.conftest import Survived
from tests.chaos.kinds import KINDS
from tests.chaos.scene import scene
from tests.chaos.talk import Talk, together

SEEDS = range(4)
KILLED = ["--number 0", "--number 1", "-m scheduler", "-m scheduler"]
"""Two deaths of workers at most: a third may count as the fault of a request that ran alone."""
STOPPED = ["--number 0", "--number 1", "-m scheduler"]
LONGEST_GAP_S = 0.7
STOPPED_S = 0.5


@pytest.mark.parametrize("seed", SEEDS)
def test_a_storm(seed: int, survived: Survived) -> None:
    rng = random.Random(seed)
    blows = [(what, signal.SIGKILL) for what in KILLED] + [(w, signal.SIGSTOP) for w in STOPPED]
    rng.shuffle(blows)

    with scene(frontends=2, replicas=2) as house:

        def strike(talks: list[Talk]) -> None:
            for what, number in blows:
                pid = house.pid(what)
                os.kill(pid, number)
                if number == signal.SIGSTOP:
                    time.sleep(STOPPED_S)
                    os.kill(pid, signal.SIGCONT)
                time.sleep(rng.uniform(0, LONGEST_GAP_S))

        outcomes = together(house.server, KINDS, strike)
        house.settle()
    survived(f"storm {seed}: {len(KILLED)} deaths, {len(STOPPED)} halts", outcomes)
