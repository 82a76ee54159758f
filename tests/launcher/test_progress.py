"""Progress of downloads, and which troubles are worth another try."""

import io

import pytest

from launcher.progress import Progress, human
from launcher.transfer import CutOffError, _passing
from tests.launcher.terminal import Clock, Terminal


def test_progress_in_a_log_and_on_a_terminal() -> None:
    clock, said = Clock(), []
    progress = Progress(2000, 500, say=said.append, stream=io.StringIO(), clock=clock)
    progress.add(100)
    clock.now = 10.0
    progress.add(400)
    progress.close()
    assert said == ["downloading [##########----------]  50 % 1.0 kB of 2.0 kB, 50 B/s"]
    screen = Terminal()
    progress = Progress(1000, say=said.append, stream=screen, clock=clock)
    clock.now += 1
    progress.add(1000)
    progress.close()
    assert screen.getvalue().startswith(
        "\rdownloading [####################] 100 % 1.0 kB of 1.0 kB, 1.0 kB/s"
    )
    assert screen.getvalue().endswith("\n")
    assert len(said) == 1


@pytest.mark.parametrize(
    ("count", "text"), [(7, "7 B"), (1500, "1.5 kB"), (16 * 10**9, "16.0 GB"), (10**13, "10.0 TB")]
)
def test_bytes_for_humans(count: int, text: str) -> None:
    assert human(count) == text


def test_which_troubles_pass() -> None:
    assert _passing(CutOffError())
    assert _passing(ConnectionResetError())
    assert not _passing(OSError(28, "No space left on device"))
    assert not _passing(ValueError())
