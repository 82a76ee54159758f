"""Stopping the real front end, and starts that cannot succeed."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from gunicorn.config import Config

from bench.stream_client import request_bytes
from common.messages import Hello
from common.settings import SETTINGS_VARIABLE
from frontend.server import FrontendWorker
from tests.frontend.fakes import events, settings
from tests.frontend.front import LIMIT_S, NEVER_BODY, ROOT, body, running, until
from tests.frontend.pipeline import STEP_S

ASKS_INFO = b"GET /info HTTP/1.1\r\nHost: x\r\n\r\n"
TEXT_ROUTES = ("/generate", "/generate_stream")


def test_stopping_lets_streams_finish(model_dir: Path, tmp_path: Path) -> None:
    with running(model_dir, tmp_path / "run", 2 * int(LIMIT_S)) as front:
        idle = socket.create_connection(("127.0.0.1", front.port), LIMIT_S)
        kept = http.client.HTTPConnection("127.0.0.1", front.port, timeout=LIMIT_S)
        kept.request("GET", "/info")
        kept.getresponse().read()
        answers: list[bytes] = []
        worker = threading.Thread(
            target=lambda: answers.append(front.request("POST", "/generate_stream", body(500))[2])
        )
        worker.start()
        until(lambda: front.backend.live() == 1)
        assert front.stop() == 0, front.output()  # long before the grace is over
        worker.join(5)
        assert events(answers[0])[-1]["generated_text"] == "x" * 500
        idle.close()
        kept.close()
    assert "Traceback" not in front.output()


@pytest.mark.parametrize("front_ends", [1, 2])
def test_stopping_closes_the_port_at_once(model_dir: Path, tmp_path: Path, front_ends: int) -> None:
    with running(model_dir, tmp_path / "run", num_frontends=front_ends) as front:
        # The health check comes on the stream's connection, which is kept alive.
        probe = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
        with front.connect("/generate_stream", body(500), probe) as client:
            until(lambda: front.backend.live() == 1)
            data = client.recv(65536)
            steps = front.backend.steps
            front.process.send_signal(signal.SIGTERM)
            until(lambda: not front.listens())
            # gunicorn itself would go on accepting until its next look, up to a second later.
            assert front.backend.steps - steps < 0.6 / STEP_S, front.output()
            assert b'generated_text":"' not in data
            while part := client.recv(65536):
                data += part
        assert front.stop() == 0, front.output()
        assert b'"generated_text":"' + b"x" * 500 in data
        assert data.count(b"HTTP/1.1 200") == 1
        assert b"HTTP/1.1 503" in data.partition(b"\r\n0\r\n\r\n")[2]
    assert "Traceback" not in front.output()


@pytest.mark.parametrize("front_ends", [1, 2])
def test_who_is_just_arriving_is_served(model_dir: Path, tmp_path: Path, front_ends: int) -> None:
    with running(model_dir, tmp_path / "run", num_frontends=front_ends) as front:
        until(lambda: len({hello.frontend for hello in front.backend.of(Hello)}) > front_ends)
        family = front.children()
        asker = http.client.HTTPConnection("127.0.0.1", front.port, timeout=LIMIT_S)
        asker.request("GET", "/info")
        assert asker.getresponse().read()
        kept = asker.sock
        for pid in family:
            os.kill(pid, signal.SIGSTOP)  # so that nobody accepts
        until(lambda: all(state_of(pid) == "T" for pid in family))
        try:
            asked = [front.connect("/generate", body(3)) for _ in range(6)]
            silent = [
                socket.create_connection(("127.0.0.1", front.port), LIMIT_S) for _ in range(4)
            ]
            silent[0].sendall(ASKS_INFO[:9])
            front.process.send_signal(signal.SIGTERM)
            until(lambda: all(is_pending(pid, signal.SIGTERM) for pid in family))
            kept.sendall(ASKS_INFO)
        finally:
            for pid in family:
                os.kill(pid, signal.SIGCONT)
        until(lambda: not front.listens())
        silent[0].sendall(ASKS_INFO[9:])
        for client in silent[1:-1]:
            client.sendall(ASKS_INFO)
        for client in [kept, *asked, *silent[:-1]]:
            assert read_all(client).startswith(b"HTTP/1.1 200"), front.output()
        assert read_all(silent[-1]) == b""
        assert front.stop() == 0, front.output()
    assert "Traceback" not in front.output()


def state_of(pid: int) -> str:
    """A letter; T for stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def is_pending(pid: int, number: signal.Signals) -> bool:
    """Whether a process has been sent a signal that it has not taken yet."""
    status = Path(f"/proc/{pid}/status").read_text()
    return bool(int(status.split("ShdPnd:")[1].split()[0], 16) >> (number - 1) & 1)


def read_all(client: socket.socket) -> bytes:
    """Up to the end of the connection."""
    with client:
        return b"".join(iter(lambda: client.recv(65536), b""))


@pytest.mark.parametrize("grace_s", [0, 1])
def test_everybody_is_told_when_the_grace_is_over(
    model_dir: Path, tmp_path: Path, grace_s: int
) -> None:
    """However far a request has come by then, and however short the grace is."""
    with running(model_dir, tmp_path / "run", grace_s) as front:
        asker = http.client.HTTPConnection("127.0.0.1", front.port, timeout=LIMIT_S)
        asker.request("GET", "/info")
        assert asker.getresponse().read()
        kept = asker.sock
        served = [front.connect(path, NEVER_BODY) for path in TEXT_ROUTES]
        until(lambda: front.backend.live() == len(served))
        half = front.connect("/generate", NEVER_BODY, cut=20)
        (pid,) = front.children()
        os.kill(pid, signal.SIGSTOP)  # so that nobody accepts
        until(lambda: state_of(pid) == "T")
        try:
            arriving = [front.connect(path, NEVER_BODY) for path in TEXT_ROUTES]
            front.process.send_signal(signal.SIGTERM)
            until(lambda: is_pending(pid, signal.SIGTERM))
            kept.sendall(request_bytes("/generate", NEVER_BODY))
        finally:
            os.kill(pid, signal.SIGCONT)
        for client in [*served, half, *arriving, kept]:
            assert b"The server is shutting down" in read_all(client), front.output()
        assert front.stop() == 0, front.output()
        assert front.backend.live() == 0
    assert "Traceback" not in front.output()


def test_a_stop_while_the_application_is_loaded_is_not_forgotten() -> None:
    """Those who have connected meanwhile are served, and told when the grace is over."""
    told: list[str] = []
    front_end = SimpleNamespace(stop_gracefully=lambda: told.append("stop"))

    class Application:
        def wsgi(self) -> SimpleNamespace:
            worker.handle_exit(signal.SIGTERM, None)
            assert not told
            return front_end

    worker = FrontendWorker(1, os.getpid(), [], Application(), 1, Config(), None)
    worker.load_wsgi()
    assert told == ["stop"]


def test_bad_starts_say_why(model_dir: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        values = settings(
            model_dir=str(model_dir),
            hostname="127.0.0.1",
            port=taken.getsockname()[1],
            runtime_dir=str(tmp_path),
        )
        (tmp_path / "settings.json").write_bytes(msgspec.json.encode(values))
        environment = {**os.environ, SETTINGS_VARIABLE: str(tmp_path / "settings.json")}
        command = [sys.executable, "-m", "frontend"]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LIMIT_S
        )
    assert done.returncode == 78
    sentence = (tmp_path / "failure").read_text().strip()
    assert str(values.port) in sentence
    assert done.stderr.strip().splitlines()[-1].endswith(f" {sentence}")
    assert "Traceback" not in done.stderr
    environment.pop(SETTINGS_VARIABLE)
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LIMIT_S
    )
    assert done.returncode == 78
