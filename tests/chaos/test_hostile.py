"""Garbage on every socket and on the port, under load: nothing dies, nobody notices."""

import random
from pathlib import Path

from tests.chaos.conftest import Survived
from tests.chaos.hostile import disturb_sockets, disturb_streams
from tests.chaos.kinds import KINDS
from tests.chaos.scene import scene
from tests.chaos.talk import Talk, together


def test_garbage_everywhere(survived: Survived, tmp_path: Path) -> None:
    directory = tmp_path / "run"
    with scene("--runtime-dir", str(directory), frontends=2, replicas=2) as house:
        before = {pid for what in ("-m", "frontend.serve") for pid in house.server.pids(what)}

        def strike(talks: list[Talk]) -> None:
            rng = random.Random(1)
            disturb_sockets(directory, 2, rng)
            disturb_streams(directory, house.server.port, rng)

        outcomes = together(house.server, KINDS, strike)
        # The stranger that said Hello is a front end until its heartbeat lapses.
        house.settle()
        after = {pid for what in ("-m", "frontend.serve") for pid in house.server.pids(what)}
        bad = sum(
            value
            for name, value in house.server.metrics().items()
            if name.startswith("millrace_bad_frames_total")
        )
        assert before <= after, "a process has died"
        assert bad > 500
        assert house.metric("millrace_replicas_lost_total") == 0
    survived(f"garbage on all sockets and the port ({bad:.0f} bad frames)", outcomes)
