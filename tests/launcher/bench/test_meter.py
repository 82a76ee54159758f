"""What is shown while a run goes on."""

import io

from launcher.bench.client import Outcome
from launcher.bench.meter import Meter
from tests.launcher.terminal import Clock, Terminal


def test_a_bar_on_a_terminal() -> None:
    clock, screen = Clock(), Terminal()
    meter = Meter("chat, 8 at once", 10, 60.0, say=print, stream=screen, clock=clock)
    clock.now = 2.0
    for _ in range(100):
        meter.piece()
    meter.done(Outcome(0.0))
    meter.done(Outcome(0.0, failure="429: no room"))
    meter.close()
    shown = screen.getvalue().split("\r")[-1].strip()
    assert shown == "chat, 8 at once [####----------------]  20 % 2 requests, 1 FAILED, 50 tok/s"


def test_a_line_now_and_then_in_a_log() -> None:
    clock, said = Clock(), []
    meter = Meter("fixed", 1000, 60.0, say=said.append, stream=io.StringIO(), clock=clock)
    for second in range(1, 31):
        clock.now = float(second)
        meter.piece()
    meter.close()
    assert [line.split(" %")[0][-2:] for line in said] == ["16", "33", "50"], "time counts too"
