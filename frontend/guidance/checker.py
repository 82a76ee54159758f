"""``python -m frontend.guidance.checker``: checks grammars for one front-end process.

It loads the tokenizer once and then forks for every grammar: what a hostile one breaks, fills or
holds up is a process of its own, with limits on time and memory. Reads and writes frames
(``frames.py``) on its standard streams, and ends with its parent. Knows neither gevent nor HTTP.
"""

import ctypes
import io
import math
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable
from typing import NoReturn

from llguidance import LLTokenizer

from frontend.guidance.frames import (
    Loaded,
    PeerLostError,
    Readable,
    Setup,
    Verdict,
    Writable,
    frame,
    receive,
    send,
)
from frontend.guidance.source import GrammarSource
from frontend.guidance.trial import refusal, try_grammar

TOO_LONG = "checking it took too long"
TOO_LARGE = "its check broke down or took too much memory"
_PR_SET_PDEATHSIG = 1
_PIPE_BYTES = 65536

Trial = Callable[[GrammarSource], Verdict]


def main() -> None:
    """Serve the standard streams until the parent closes them."""
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb")
    # Whatever a library prints must not get between the frames.
    os.dup2(2, 1)
    try:
        serve(sys.stdin.buffer, answers)
    except (PeerLostError, BrokenPipeError):
        return


def serve(requests: Readable, answers: Writable) -> None:
    """Answer every grammar with a verdict. Raises PeerLostError at the end, and OSError."""
    setup = receive(requests, Setup)
    try:
        tokenizer = _tokenizer(setup)
    except BaseException as error:  # the library's panics are no Exceptions
        send(answers, Loaded(error=str(error) or type(error).__name__))
        return
    send(answers, Loaded())
    while True:
        source = receive(requests, GrammarSource)
        send(answers, isolated(lambda grammar: try_grammar(grammar, tokenizer), source, setup))


def isolated(trial: Trial, source: GrammarSource, setup: Setup) -> Verdict:
    """What ``trial`` says in a process of its own, or why that process came to an end."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _run_trial(trial, source, setup, writing)
    os.close(writing)
    with os.fdopen(reading, "rb", buffering=0) as answer:
        data = _read_all(answer.fileno(), time.monotonic() + setup.time_s)
        if data is None:
            os.kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if data is None or status == -signal.SIGXCPU:
        return refusal(TOO_LONG, exhausted=True)
    if status != 0:  # out of memory ends in an abort, as mistakes in the library may
        return refusal(TOO_LARGE, exhausted=True)
    return receive(io.BytesIO(data), Verdict)


def _run_trial(trial: Trial, source: GrammarSource, setup: Setup, writing: int) -> NoReturn:
    """The life of the child. Whatever happens, it does not return into its parent's code."""
    status = 1
    try:
        _die_with_parent()
        _limit(setup)
        data = memoryview(frame(trial(source)))
        while data:
            data = data[os.write(writing, data) :]
        status = 0
    finally:
        os._exit(status)


def _limit(setup: Setup) -> None:
    """From now on; a fork has used no CPU time yet."""
    with open("/proc/self/statm", encoding="ascii") as file:
        pages = int(file.read().split()[0])
    room = pages * resource.getpagesize() + setup.memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (room, room))
    cpu_s = math.ceil(setup.time_s)
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
    # A core file would hold what clients wrote.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _read_all(descriptor: int, deadline: float) -> bytes | None:
    """Everything until the other end is closed; None if that takes too long."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    parts: list[bytes] = []
    while poll.poll(max(deadline - time.monotonic(), 0.0) * 1000):
        part = os.read(descriptor, _PIPE_BYTES)
        if not part:
            return b"".join(parts)
        parts.append(part)
    return None


def _tokenizer(setup: Setup) -> LLTokenizer:
    """Raises whatever the library does for a tokenizer that it cannot read."""
    try:
        return LLTokenizer(setup.tokenizer, eos_token=setup.end_ids or None)
    except ValueError:
        # An id of the model's configuration may lie beyond the tokenizer's own.
        return LLTokenizer(setup.tokenizer)


def _die_with_parent() -> None:
    """At once, even in the middle of a check. RACE: one that is gone already closes the pipe."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main()
