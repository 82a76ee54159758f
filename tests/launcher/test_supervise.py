"""The launcher as supervisord, with stand-ins for the processes: starts, deaths, stops, secrets."""

import json
import os
import shlex
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from select import POLLIN, poll

import pytest

from common.keys import digest
from launcher.supervise import _Alarm
from tests.launcher.standins import ROOT, gone, make_standins, running
from tests.processes import children_of, command_line


@pytest.fixture
def home(tmp_path: Path) -> Path:
    make_standins(tmp_path / "standins")
    return tmp_path


@contextmanager
def hangups(action: signal.Handlers) -> Iterator[None]:
    """What they do to whoever is started within."""
    before = signal.signal(signal.SIGHUP, action)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def deaf_to_hangups() -> Iterator[None]:
    """As nohup leaves those whom it starts."""
    with hangups(signal.SIG_IGN):
        yield


@pytest.fixture
def hearing_hangups() -> Iterator[None]:
    """Whatever has started the tests."""
    with hangups(signal.SIG_DFL):
        yield


@pytest.fixture
def heard() -> Iterator[int]:
    """A signal that does nothing."""
    before = signal.signal(signal.SIGUSR1, lambda number, frame: None)
    yield signal.SIGUSR1
    signal.signal(signal.SIGUSR1, before)


def test_the_loop_turns_at_its_start_and_twice_after_a_signal(heard: int) -> None:
    """Nothing of what it does waits for its next tick."""
    waiting = poll()
    with _Alarm() as alarm:
        waiting.register(alarm.fileno, POLLIN)

        def turns() -> int:
            count = 0
            while waiting.poll(0):
                alarm.handle_read_event()
                count += 1
            return count

        assert turns() == 1
        signal.raise_signal(heard)
        assert turns() == 2


def test_starts_announces_and_stops_in_order(home: Path) -> None:
    with running(home, "--num-replicas", "2") as run:
        ready = run.wait_until_ready()
        assert f"http://localhost:{run.port}" in ready
        assert "millrace-builtin" in ready
        run.wait_for("chat/completions")
        (runtime,) = run.runtime_dirs()
        assert stat.S_IMODE(runtime.stat().st_mode) == 0o700
        assert stat.S_IMODE((runtime / "settings.json").stat().st_mode) == 0o600
        assert run.stop() == 0
        text = "\n".join(run.lines)
        assert text.count("worker runs as") == 2
        stops = [line for line in run.lines if line.endswith(" stops")]
        assert stops == ["frontend stops", "worker stops", "worker stops", "scheduler stops"]
        assert run.runtime_dirs() == []


def test_an_interpreter_in_a_place_with_a_space(home: Path) -> None:
    (home / "a place").symlink_to(sys.prefix)
    with running(home, python=str(home / "a place" / "bin" / "python")) as run:
        run.wait_until_ready()
        assert run.stop() == 0


def test_a_low_limit_on_open_files(home: Path) -> None:
    narrow = home / "narrow"
    narrow.write_text(f'#!/bin/sh\nulimit -n 256\nexec {shlex.quote(sys.executable)} "$@"\n')
    narrow.chmod(0o700)
    with running(home, python=str(narrow)) as run:
        run.wait_until_ready()
        assert run.stop() == 0


def test_a_killed_worker_is_started_again(home: Path) -> None:
    with running(home) as run:
        (worker,) = run.pids_of("worker")
        run.wait_until_ready()
        family = children_of(run.process.pid)
        (listener,) = [pid for pid in family if "launcher.listener" in command_line(pid)]
        os.kill(listener, signal.SIGKILL)  # its successor must know that the server is ready
        run.process.send_signal(signal.SIGUSR1)  # nobody's business here
        for _ in range(3):  # as often as is too much before the server is ready
            os.kill(worker, signal.SIGKILL)
            (worker,) = run.pids_of("worker")
        assert run.stop() == 0
        assert any("worker_0 died and is started again" in line for line in run.lines)


def test_who_dies_during_a_stop_is_replaced_while_front_ends_finish(home: Path) -> None:
    os.mkfifo(home / "finish")  # the front end waits until somebody opens it
    with running(home) as run:
        pids = dict(zip(("scheduler", "worker"), run.pids_of("scheduler", "worker"), strict=True))
        run.wait_until_ready()
        run.process.send_signal(signal.SIGTERM)
        run.wait_for("frontend stops")
        for name, pid in pids.items():
            os.kill(pid, signal.SIGKILL)
            run.pids_of(name)
        (home / "finish").write_text("")
        assert run.end() == 0
    for name in pids:
        assert sum(line.startswith(f"{name} runs as") for line in run.lines) == 2


def test_nobody_is_replaced_once_all_has_to_end_at_once(home: Path) -> None:
    os.mkfifo(home / "finish")
    with running(home) as run:
        run.wait_until_ready()
        run.process.send_signal(signal.SIGINT)
        run.wait_for("frontend stops")
        run.process.send_signal(signal.SIGINT)
        assert run.end() == 0
    assert sum(line.startswith("worker runs as") for line in run.lines) == 1


def test_a_process_that_cannot_start_ends_everything_with_its_sentence(home: Path) -> None:
    (home / "worker-refuses").touch()
    with running(home) as run:
        assert run.end() == 1
        assert run.lines[-1] == "millrace: the model is made of cheese"
        assert run.runtime_dirs() == []


def test_a_process_that_crashes_at_every_start_is_given_up(home: Path) -> None:
    (home / "scheduler-crashes").touch()
    (home / "frontend-crashes").touch()
    with running(home) as run:
        assert run.end() == 1
        assert "died 3 times before the server was ready" in run.lines[-1]


def test_a_later_failure_to_start_is_tried_again(home: Path) -> None:
    with running(home) as run:
        (worker,) = run.pids_of("worker")
        run.wait_until_ready()
        (home / "worker-refuses").touch()
        os.kill(worker, signal.SIGKILL)
        run.wait_for("worker_0 cannot start: the model is made of cheese; trying again")
        (home / "worker-refuses").unlink()
        run.wait_for("worker runs as")
        assert run.stop() == 0


def test_children_end_when_the_launcher_is_killed(home: Path) -> None:
    with running(home) as run:
        pids = run.pids_of("scheduler", "worker", "frontend")
        run.wait_until_ready()
        run.process.kill()
        assert all(gone(pid) for pid in pids)
    left = run.runtime_dirs()
    assert len(left) == 1
    os.utime(left[0] / "lock", (0, 0))
    with running(home) as run:  # the next start tidies up
        run.wait_until_ready()
        assert left[0] not in run.runtime_dirs()
        assert run.stop() == 0


@pytest.mark.parametrize("when", ["starting; model", "scheduler runs as"])
def test_told_to_stop_while_starting(home: Path, when: str) -> None:
    with running(home) as run:
        run.wait_for(when)
        assert run.stop() in (0, 128 + signal.SIGTERM)
        assert run.runtime_dirs() == []


def test_a_closed_terminal_ends_it(home: Path, hearing_hangups: None) -> None:
    with running(home) as run:
        run.wait_until_ready()
        run.process.send_signal(signal.SIGHUP)
        assert run.end() == 0
        assert "worker stops" in run.lines
        assert run.runtime_dirs() == []


def test_a_closed_terminal_does_not_end_it_under_nohup(home: Path, deaf_to_hangups: None) -> None:
    with running(home) as run:
        (worker,) = run.pids_of("worker")
        run.wait_until_ready()
        run.process.send_signal(signal.SIGHUP)
        os.kill(worker, signal.SIGKILL)
        run.pids_of("worker")  # a server that is ending starts no new one
        assert "frontend stops" not in run.lines
        assert run.stop() == 0


def test_secrets_are_neither_arguments_nor_environment(home: Path) -> None:
    env = {"HF_TOKEN": "hush-token", "TGI_API_KEY": "hush-key"}
    with running(home, "--api-key", "hush-flag", "--cors-allow-origin", "a", env=env) as run:
        pids = run.pids_of("scheduler", "worker", "frontend")
        run.wait_until_ready()
        for pid in [run.process.pid, *pids]:
            assert "hush" not in command_line(pid)
            assert b"hush" not in Path(f"/proc/{pid}/environ").read_bytes()
        (runtime,) = run.runtime_dirs()
        written = (runtime / "settings.json").read_bytes()
        assert b"hush" not in written
        assert digest(b"hush-flag").encode() in written
        assert run.stop() == 0
        assert "hush" not in "\n".join(run.lines)
        assert any("--api-key on the command line can be seen" in line for line in run.lines)


def test_supervisorctl_and_a_given_runtime_directory(home: Path) -> None:
    place = home / "r"
    with running(home, "--runtime-dir", str(place)) as run:
        run.wait_until_ready()
        answer = subprocess.run(
            [
                *(sys.executable, "-m", "supervisor.supervisorctl"),
                *("-s", f"unix://{place}/supervisor.sock", "-c", str(ROOT / "supervisord.conf")),
                "status",
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert "worker:worker_0" in answer.stdout
        with running(home, "--runtime-dir", str(place)) as second:
            assert second.end() == 1
        assert "is in use by another server" in second.lines[-1]
        assert run.stop() == 0
    assert list(place.iterdir()) == []


def test_output_to_a_socket(home: Path) -> None:
    """What journald and some container runtimes connect; it cannot be opened by name."""
    ours, theirs = socket.socketpair()
    with running(home, stdout=theirs) as run, ours:
        theirs.close()
        text = b""
        while b"Millrace is ready" not in text:
            text += ours.recv(65536)
        assert run.stop() == 0
        while data := ours.recv(65536):
            text += data
        assert b"scheduler stops" in text


def test_output_to_a_full_disk_does_not_matter(home: Path) -> None:
    os.mkfifo(home / "told")
    with open("/dev/full", "wb") as full, running(home, stdout=full) as run:
        assert (home / "told").read_text() == "healthy"  # blocks until the front end was asked
        assert run.stop() == 0


def test_output_in_a_file_keeps_every_line(home: Path) -> None:
    path = home / "log"
    (home / "worker-refuses").touch()
    with path.open("wb") as file, running(home, stdout=file) as run:
        assert run.end() == 1
    lines = path.read_text().splitlines()
    assert "that the model can read" in lines[0]
    assert "starting; model" in lines[1]
    assert lines[-1] == "millrace: the model is made of cheese"


def test_json_output(home: Path) -> None:
    with running(home, "--json-output") as run:
        run.wait_for('"message":"starting; model')
        run.wait_for('"message":"ready: port')
        assert run.stop() == 0


def test_every_line_is_json_if_any_is(home: Path) -> None:
    (home / "worker-refuses").touch()
    with running(home, "--json-output") as run:
        assert run.end() == 1
    line = json.loads(run.lines[-1])
    assert (line["process"], line["level"]) == ("supervisor", "ERROR")
    assert line["message"] == "the model is made of cheese"
