"""Processes of tests are gone with what has started them, whatever becomes of that."""

import os
import select
import sys
from pathlib import Path
from subprocess import PIPE

import pytest

from tests.processes import alive, started

ROOT = Path(__file__).parents[1]
LIMIT_S = 20
LONG = ["sleep", "600"]


def pid_from(process) -> int:
    return int(process.stdout.readline())


@pytest.mark.parametrize("error", [AssertionError, KeyboardInterrupt, pytest.fail.Exception])
def test_whatever_is_raised(error):
    with pytest.raises(error), started(LONG) as process:
        raise error("on purpose")
    assert process.returncode == -9


def test_orphans_are_ended_too():
    with started(["sh", "-c", "sleep 600 & echo $!"], stdout=PIPE) as process:
        orphan = pid_from(process)
        assert process.wait(LIMIT_S) == 0
        assert alive(orphan)
    assert not alive(orphan)


def test_who_is_stopped_and_in_a_session_of_its_own_is_ended_too():
    code = "setsid sleep 600 & echo $!; kill -STOP $!; wait"
    with started(["sh", "-c", code], stdout=PIPE) as process:
        child = pid_from(process)
    assert not alive(child)


def test_nothing_outlives_tests_that_are_killed():
    code = (
        "from tests.processes import started\n"
        "with started(['sh', '-c', 'echo $$; exec sleep 600']) as process:\n"
        "    process.wait()\n"
    )
    with (
        started([sys.executable, "-c", code], cwd=ROOT, stdout=PIPE) as tests,
        os.fdopen(os.pidfd_open(pid_from(tests))) as ended,
    ):
        tests.kill()
        assert select.select([ended], [], [], LIMIT_S)[0]


def test_output_is_handed_over_to_its_end():
    lines: list[str | None] = []
    with started(["sh", "-c", "echo a; echo b >&2"], take=lines.append) as process:
        process.wait(LIMIT_S)
    assert lines == ["a", "b", None]
