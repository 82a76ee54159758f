"""What the command asks of whom, in which order, and the sentences of its refusals."""

import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
import zmq

from common.errors import StartupError
from common.messages import Retire, Retired
from common.settings import Settings
from common.sockets import FROM_FRONTEND, encode, open_socket, requests_endpoint
from launcher import replace as replacing
from launcher.commands.replace_worker import run
from launcher.replace import Scheduler, find_server, processes_of, replace
from launcher.resolve import UsageError
from launcher.runtime import SETTINGS, running_servers


def settings(directory: Path, **changes: object) -> Settings:
    fields = {"model_id": "m", "model_dir": "/m", "runtime_dir": str(directory), **changes}
    made = msgspec.convert(fields, Settings)
    (directory / SETTINGS).write_bytes(msgspec.json.encode(made))
    return made


class Supervisor:
    """Remembers what was started anew; ``then`` is called."""

    def __init__(self, then: Callable[[], None] = lambda: None) -> None:
        self.names: list[str] = []
        self._then = then

    def restart(self, names: list[str]) -> None:
        self.names += names
        self._then()


class Answers(threading.Thread):
    """A scheduler that says one stage after the other, the second one when it may."""

    def __init__(self, directory: Path, *stages: Retired) -> None:
        super().__init__(daemon=True)
        self._stages = stages
        self.may_go_on = threading.Event()
        self.asked: Retire | None = None
        self._context = zmq.Context()
        self._socket = open_socket(self._context, zmq.ROUTER)
        self._socket.bind(requests_endpoint(str(directory)))

    def run(self) -> None:
        identity, frame = self._socket.recv_multipart()
        asked = FROM_FRONTEND.decode(frame)
        assert isinstance(asked, Retire)
        self.asked = asked
        self._socket.send_multipart([identity, b"garbage"])
        for stage in self._stages:
            told = msgspec.structs.replace(stage, tag_id=asked.tag_id)
            self._socket.send_multipart([identity, encode(told)])
            self.may_go_on.wait(20)
        self._socket.close(linger=500)
        self._context.term()


def test_emptied_then_swapped_then_ready(tmp_path: Path) -> None:
    settings(tmp_path)
    answers = Answers(tmp_path, Retired(0, "empty"), Retired(0, "ready"))
    answers.start()
    supervisor = Supervisor(answers.may_go_on.set)
    said: list[str] = []
    replace(tmp_path, 2, said.append, supervisor)  # type: ignore[arg-type]
    answers.join(10)
    assert answers.asked is not None
    assert answers.asked.replica == 2
    assert supervisor.names == ["worker:worker_2"]
    assert said[-1] == "replica 2 is ready"


def test_a_refusal_touches_nothing(tmp_path: Path) -> None:
    settings(tmp_path)
    answers = Answers(tmp_path, Retired(0, "refused", "there is no replica 9, only 0"))
    answers.may_go_on.set()
    answers.start()
    supervisor = Supervisor()
    with pytest.raises(StartupError, match="there is no replica 9"):
        replace(tmp_path, 9, lambda _: None, supervisor)  # type: ignore[arg-type]
    assert supervisor.names == []
    answers.join(10)


def test_flags_that_make_no_sense() -> None:
    for arguments in (["--replica", "x"], ["--what"], ["0"]):
        with pytest.raises(UsageError, match="see millrace replace-worker --help"):
            run(arguments, {})
    with pytest.raises(StartupError, match="not the runtime directory"):
        run(["--runtime-dir", "/nowhere"], {})


def test_the_pid_of_a_process_that_runs(tmp_path: Path) -> None:
    supervisor = replacing.Supervisor(tmp_path)
    assert supervisor.pid_of("scheduler") == 0  # nobody is there to say
    states = {"a": "RUNNING", "b": "STARTING"}
    supervisor._calls = SimpleNamespace(
        getProcessInfo=lambda name: {"pid": 7, "statename": states[name]}
    )
    assert (supervisor.pid_of("a"), supervisor.pid_of("b")) == (7, 0)


def test_nobody_answers(tmp_path: Path) -> None:
    scheduler = Scheduler(tmp_path)
    with pytest.raises(StartupError, match="not empty within"):
        scheduler.wait_for("empty", 0.01)
    scheduler.close()


def test_a_scheduler_that_ends_meanwhile(tmp_path: Path) -> None:
    settings(tmp_path)
    answers = Answers(tmp_path, Retired(0, "empty"))
    answers.start()
    supervisor = Supervisor(answers.may_go_on.set)
    with pytest.raises(StartupError, match="has ended while the worker was not ready yet"):
        replace(tmp_path, 0, lambda _: None, supervisor)  # type: ignore[arg-type]
    assert supervisor.names == ["worker:worker_0"]
    answers.join(10)


def test_the_processes_of_a_model_in_pieces(tmp_path: Path) -> None:
    names = processes_of(settings(tmp_path, num_shard=2), 1)
    assert names == ["worker:worker_2", "worker:worker_3"]


def test_which_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings(tmp_path)
    assert find_server(str(tmp_path)) == tmp_path
    with pytest.raises(StartupError, match="not the runtime directory of a running server"):
        find_server(str(tmp_path / "none"))
    servers = [tmp_path / "a", tmp_path / "b"]
    for count, sentence in ((0, "no server of this user"), (2, "several servers")):
        monkeypatch.setattr(replacing, "running_servers", lambda n=count: servers[:n])
        with pytest.raises(StartupError, match=sentence):
            find_server(None)
    monkeypatch.setattr(replacing, "running_servers", lambda: servers[:1])
    assert find_server(None) == servers[0]


def test_running_servers_are_those_that_hold_their_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for name in ("millrace-running", "millrace-left", "other"):
        (tmp_path / name).mkdir(mode=0o700)
    lock = os.open(tmp_path / "millrace-running" / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    assert running_servers() == [tmp_path / "millrace-running"]
    os.close(lock)
    assert running_servers() == []
