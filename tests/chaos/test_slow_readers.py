"""A thousand clients that never read, against real front ends and a worker that is none."""

from collections.abc import Callable
from pathlib import Path

from common.messages import Cancel
from tests.chaos.deaf import Deaf
from tests.frontend.fakes import events, write_model
from tests.frontend.front import Front, body, running, until

CROWD = 1000
ENDLESS = 19_000
"""Tokens: nobody comes to this end."""
CLIENT_BUFFER = 65_536
EACH_MB = 0.4
"""What one of them may cost the front ends: connection, greenlet, waiting tokens."""
LIMIT_S = 240.0


def memory_mb(front: Front) -> float:
    found = 0
    for pid in front.children():
        status = Path(f"/proc/{pid}/status").read_text()
        found += int(status.split("VmHWM:")[1].split()[0])
    return found / 1024


def test_a_crowd_that_never_reads(tmp_path: Path, tell: Callable[[str], None]) -> None:
    with running(
        write_model(tmp_path / "model"), tmp_path / "run", num_frontends=2,
        client_buffer=CLIENT_BUFFER, max_total_tokens=20_000, max_concurrent_requests=2 * CROWD,
    ) as front:  # fmt: skip
        before = memory_mb(front)
        with Deaf(front.port, CROWD, body(ENDLESS)):
            until(lambda: len(front.backend.of(Cancel)) > 0, LIMIT_S)
            status, _, answer = front.request("POST", "/generate_stream", body(50))
            assert (status, len(events(answer))) == (200, 50)
            until(lambda: len(front.backend.of(Cancel)) == CROWD, LIMIT_S)
            after = memory_mb(front)
        assert {cancel.reason for cancel in front.backend.of(Cancel)} == {"client_gone"}
        tell(
            f"{CROWD} clients that never read: all cut off at their limit; front ends' memory "
            f"{before:.0f} -> {after:.0f} MB at most"
        )
        assert after - before < CROWD * EACH_MB
        assert front.stop() == 0, front.output()
