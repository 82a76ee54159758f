"""Garbage on every socket and on the port, under load: nothing dies, nobody notices."""

import os
import random
from pathlib import Path

from tests.chaos.conftest import Survived
from tests.chaos.hostile import disturb_sockets, disturb_streams
from tests.chaos.kinds import KINDS
from tests.chaos.scene import scene
from tests.chaos.talk import Talk, together

SERVING = ("-m scheduler", "-m worker", "-m frontend.serve", "launcher.listener")
MOST_CPU_S = 2.0
"""Of scheduler and front ends together, for all of it, what they do for the others included."""


def cpu_s(pids: list[int]) -> float:
    """Processor time so far."""
    spent = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        spent += int(fields[11]) + int(fields[12])
    return spent / os.sysconf("SC_CLK_TCK")


def test_garbage_everywhere(survived: Survived, tmp_path: Path) -> None:
    directory = tmp_path / "run"
    with scene("--runtime-dir", str(directory), frontends=2, replicas=2) as house:
        before = {pid for what in SERVING for pid in house.server.pids(what)}

        busy = [*house.server.pids("-m scheduler"), *house.frontends]
        spent_s = 0.0

        def strike(talks: list[Talk]) -> None:
            nonlocal spent_s
            before_s = cpu_s(busy)
            rng = random.Random(1)
            disturb_sockets(directory, 2, rng)
            disturb_streams(directory, house.server.port, rng)
            spent_s = cpu_s(busy) - before_s

        outcomes = together(house.server, KINDS, strike)
        # The stranger that said Hello is a front end until its heartbeat lapses.
        house.settle()
        after = {pid for what in SERVING for pid in house.server.pids(what)}
        bad = sum(
            value
            for name, value in house.server.metrics().items()
            if name.startswith("millrace_bad_frames_total")
        )
        assert before <= after, "a process has died"
        assert bad > 500
        assert spent_s < MOST_CPU_S
        assert house.metric("millrace_replicas_lost_total") == 0
    survived(
        f"garbage on all sockets and the port ({bad:.0f} bad frames, {spent_s:.1f} s of CPU)",
        outcomes,
    )
