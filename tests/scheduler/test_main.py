"""The process: starts, drains on SIGTERM, says in one sentence why it cannot start."""

import os
import signal
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from common.failure import EXIT_CONFIGURATION
from common.messages import (
    PROTOCOL_VERSION,
    Accepted,
    Delivered,
    Dispatch,
    Hello,
    Progress,
    Ready,
    Replay,
    SequenceTokens,
    Status,
    StepReport,
    Submit,
)
from common.sockets import (
    TO_FRONTEND,
    TO_WORKER,
    dispatch_endpoint,
    encode,
    frontend_identity,
    open_socket,
    requests_endpoint,
    worker_identity,
)
from tests.processes import started
from tests.scheduler.harness import FRONTEND, sequence_id, settings, spec

ROOT = Path(__file__).resolve().parents[2]


def scheduler(
    path: Path, *, mode: int = 0o700, **changes: Any
) -> AbstractContextManager[subprocess.Popen[str]]:
    """A process that runs meanwhile."""
    values = {"hostname": "127.0.0.1", "prometheus_port": 0, "runtime_dir": str(path), **changes}
    file = path / "settings.json"
    file.write_bytes(msgspec.json.encode(settings(**values)))
    path.chmod(mode)
    return started(
        [sys.executable, "-m", "scheduler"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "MILLRACE_SETTINGS": str(file)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_sigterm_ends_an_idle_scheduler_with_status_zero(tmp_path: Path) -> None:
    with scheduler(tmp_path) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "is ready" in line:
                break
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=10)
    assert process.returncode == 0, err
    assert "draining" in out
    assert not (tmp_path / "failure").exists()


def test_a_sequence_passes_through_the_process(tmp_path: Path) -> None:
    context = zmq.Context()
    frontend = open_socket(context, zmq.DEALER, identity=frontend_identity(FRONTEND))
    worker = open_socket(context, zmq.DEALER, identity=worker_identity(0, 9))
    for dealer in (frontend, worker):
        dealer.rcvtimeo = 10_000
    with context, frontend, worker, scheduler(tmp_path) as process:
        frontend.connect(requests_endpoint(str(tmp_path)))
        worker.connect(dispatch_endpoint(str(tmp_path)))
        worker.send(encode(Ready(PROTOCOL_VERSION, 0, 9, 1, 100)))
        frontend.send(encode(Hello(PROTOCOL_VERSION, FRONTEND, os.getpid())))
        assert isinstance(TO_FRONTEND.decode(frontend.recv()), Status)
        frontend.send(encode(Submit(spec(1, new=1))))
        dispatch = TO_WORKER.decode(worker.recv())
        assert isinstance(dispatch, Dispatch)
        assert [new.spec for new in dispatch.add] == [spec(1, new=1)]
        process.send_signal(signal.SIGTERM)
        tokens = SequenceTokens(sequence_id(1), 0, 0, [5], [-1.0], finish="length")
        report = StepReport(dispatch.epoch, 9, 1, 1, [Progress(tokens, 20)], [], [FRONTEND])
        worker.send(encode(report))
        heard: list[Any] = []
        while not heard or heard[-1] != Replay([tokens]):
            heard.append(TO_FRONTEND.decode(frontend.recv()))
        assert Accepted(sequence_id(1), 0) in heard
        frontend.send(encode(Delivered(sequence_id(1), success=True)))
        _, err = process.communicate(timeout=10)
        assert process.returncode == 0, err


@pytest.mark.parametrize(
    ("changes", "mode", "word"),
    [
        ({}, 0o755, "runtime directory"),
        ({"prometheus_port": 9, "hostname": "203.0.113.1"}, 0o700, "--prometheus-port"),
    ],
)
def test_a_failed_start_leaves_a_sentence(
    tmp_path: Path, changes: dict[str, object], mode: int, word: str
) -> None:
    with scheduler(tmp_path, mode=mode, **changes) as process:
        _, err = process.communicate(timeout=20)
    assert process.returncode == EXIT_CONFIGURATION
    assert len(err.splitlines()) == 1
    assert word in err
    assert word in (tmp_path / "failure").read_text()
