"""The checker's process: what breaks, fills or holds up a check ends that check alone."""

import io
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from frontend.guidance.checker import TOO_LARGE, TOO_LONG, isolated
from frontend.guidance.frames import (
    MAX_FRAME_BYTES,
    Loaded,
    PeerLostError,
    Setup,
    Verdict,
    frame,
    receive,
    send,
)
from frontend.guidance.process import child_environment
from frontend.guidance.source import GrammarSource
from tests.processes import started

SOURCE = GrammarSource("regex", "a+")
MIB = 1024 * 1024


def setup(time_s: float = 5.0, path: str = "") -> Setup:
    return Setup(tokenizer=path, end_ids=[], time_s=time_s, memory_bytes=64 * MIB)


def test_a_trial_has_a_process_of_its_own() -> None:
    verdict = isolated(
        lambda source: Verdict(grammar=f"{source.text} {os.getpid()}"), SOURCE, setup()
    )
    text, pid = verdict.grammar.split()
    assert text == SOURCE.text
    assert int(pid) != os.getpid()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)


def test_large_results() -> None:
    verdict = isolated(lambda _: Verdict(grammar="a" * MIB), SOURCE, setup())
    assert len(verdict.grammar) == MIB


def endless(source: GrammarSource) -> Verdict:
    while True:
        pass


def waiting(source: GrammarSource) -> Verdict:
    signal.pause()
    return Verdict()


def greedy(source: GrammarSource) -> Verdict:
    return Verdict(grammar=str(len(bytearray(128 * MIB))))


def fails(source: GrammarSource) -> Verdict:
    raise ValueError


def is_killed(source: GrammarSource) -> Verdict:
    os.kill(os.getpid(), signal.SIGKILL)
    return Verdict()


@pytest.mark.parametrize(
    ("trial", "reason"),
    [
        (endless, TOO_LONG),
        (waiting, TOO_LONG),
        (greedy, TOO_LARGE),
        (fails, TOO_LARGE),
        (is_killed, TOO_LARGE),
    ],
)
def test_limits(trial: Callable[[GrammarSource], Verdict], reason: str) -> None:
    time_s = 0.1 if reason == TOO_LONG else 5.0
    verdict = isolated(trial, SOURCE, setup(time_s))
    assert verdict.error == reason
    assert verdict.exhausted


@pytest.fixture
def process() -> Iterator["subprocess.Popen[bytes]"]:
    with started(
        [sys.executable, "-P", "-m", "frontend.guidance.checker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=child_environment(dict(os.environ)),
    ) as process:
        yield process


def test_a_conversation(process: "subprocess.Popen[bytes]", model_dir: Path) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    send(process.stdin, setup(path=str(model_dir / "tokenizer.json")))
    assert receive(process.stdout, Loaded) == Loaded()
    send(process.stdin, SOURCE)
    assert '"grammars"' in receive(process.stdout, Verdict).grammar
    send(process.stdin, GrammarSource("regex", "a("))
    assert "unclosed group" in receive(process.stdout, Verdict).error
    process.send_signal(signal.SIGINT)
    send(process.stdin, SOURCE)
    assert receive(process.stdout, Verdict).error == ""
    assert "gevent" not in Path(f"/proc/{process.pid}/maps").read_text()
    process.stdin.close()
    assert process.wait(10) == 0


def test_an_unknown_tokenizer(process: "subprocess.Popen[bytes]", tmp_path: Path) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    (tmp_path / "tokenizer.json").write_text("{}")
    send(process.stdin, setup(path=str(tmp_path / "tokenizer.json")))
    assert receive(process.stdout, Loaded).error
    assert process.wait(10) == 0


def test_end_tokens_beyond_the_tokenizer(
    process: "subprocess.Popen[bytes]", model_dir: Path
) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    path = str(model_dir / "tokenizer.json")
    send(process.stdin, Setup(tokenizer=path, end_ids=[10**6], time_s=1.0, memory_bytes=64 * MIB))
    assert receive(process.stdout, Loaded) == Loaded()


def test_it_ends_with_its_parent(model_dir: Path) -> None:
    """The parent is killed while it holds the pipes' only other ends."""
    code = (
        "import subprocess, sys, signal, os\n"
        "p = subprocess.Popen([sys.executable, '-P', '-m', 'frontend.guidance.checker'],"
        " stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)\n"
        "print(p.pid, flush=True)\n"
        "signal.pause()\n"
    )
    command = [sys.executable, "-P", "-c", code]
    environment = child_environment(dict(os.environ))
    with started(command, stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        with os.fdopen(os.pidfd_open(int(parent.stdout.readline()))) as ended:
            parent.kill()
            assert select.select([ended], [], [], 10)[0]


def test_no_secrets_are_inherited() -> None:
    given = {"HF_TOKEN": "s", "MILLRACE_SETTINGS": "x", "PATH": "/bin", "LANG": "C"}
    found = child_environment(given)
    assert set(found) == {"PATH", "LANG", "PYTHONPATH"}
    assert child_environment({"PYTHONPATH": "/x"})["PYTHONPATH"].startswith("/x" + os.pathsep)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0",
        b"\0\0\0\5abc",
        b"\0\0\0\1\xff",
        (MAX_FRAME_BYTES + 1).to_bytes(4, "big") + b"x" * 100,
        frame(SOURCE),
    ],
)
def test_broken_frames(data: bytes) -> None:
    with pytest.raises(PeerLostError):
        receive(io.BytesIO(data), Verdict)
