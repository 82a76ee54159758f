"""The whole server is halted for a while, as a suspended machine or a paused container is."""

import os
import signal
import time

from tests.chaos.conftest import Survived
from tests.chaos.kinds import KINDS
from tests.chaos.scene import scene
from tests.chaos.talk import Talk, together
from tests.processes import children_of

ALL = sum(kind.sequences for kind in KINDS)
TAKEN = "tgi_request_input_length_count"
HALTED_S = 12.0
"""Longer than a front end's heartbeat may lapse, and than a worker may take for a step."""


def test_a_halted_server(survived: Survived) -> None:
    with scene(frontends=2, replicas=2) as house:
        root = house.server.process.pid
        late: list[Talk] = []

        def strike(talks: list[Talk]) -> None:
            # One grammar after the other is checked, and none waits for that for ever.
            house.server.until(lambda: house.scrape()[TAKEN] >= ALL, 90)
            family = [root, *children_of(root)]
            for pid in family:
                os.kill(pid, signal.SIGSTOP)
            try:
                late.extend(Talk(house.server, kind) for kind in KINDS[:6])
                time.sleep(HALTED_S)
            finally:
                for pid in family:
                    os.kill(pid, signal.SIGCONT)

        outcomes = together(house.server, KINDS, strike)
        outcomes += [talk.wait() for talk in late]
        house.settle()
        assert house.metric("millrace_replicas_lost_total") == 0
    survived(f"all of the server halted for {HALTED_S:.0f} s", outcomes)
