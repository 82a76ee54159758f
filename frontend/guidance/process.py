"""The checker's process as a front end sees it: started, asked, ended; in front ends, on gevent.

Owns the process and its pipes. Knows nothing of queues and caches, and nothing of what is checked.
"""

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TypeVar

import gevent
from gevent import subprocess

from common.settings import environment
from frontend.guidance.frames import Loaded, PeerLostError, Setup, Verdict, receive, send
from frontend.guidance.source import GrammarSource

LOAD_LIMIT_S = 60.0
"""So long a tokenizer may take to load; one of 128,000 tokens takes about a second."""
GRACE_S = 2.0
"""So much later than the checker itself should have given up, it is given up."""
_END_LIMIT_S = 2.0
_PACKAGES_ROOT = Path(__file__).resolve().parents[2]
_INHERITED = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME", "LANG", "LC_ALL")
"""All of the environment that a checker gets: no secrets, no settings."""


A = TypeVar("A", Loaded, Verdict)


class CheckerLostError(Exception):
    """The checker died, or did not answer in time."""


class UnusableTokenizerError(Exception):
    """No grammar can be checked with this model's tokenizer."""


class Process(Protocol):
    """A running checker."""

    def check(self, source: GrammarSource) -> Verdict:
        """Raises CheckerLostError."""
        ...

    def close(self) -> None:
        """End it."""
        ...


class CheckerProcess:
    """A checker in a process of its own. For one greenlet at a time."""

    def __init__(self, setup: Setup) -> None:
        """Waits until it is ready. Raises CheckerLostError, UnusableTokenizerError and OSError."""
        self._limit_s = setup.time_s + GRACE_S
        self._popen = subprocess.Popen(
            [sys.executable, "-P", "-m", "frontend.guidance.checker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=child_environment(environment()),
        )
        loaded = self._exchange(setup, Loaded, LOAD_LIMIT_S)
        if loaded.error:
            self.close()
            raise UnusableTokenizerError(loaded.error)

    @property
    def pid(self) -> int:
        """Process id."""
        pid: int = self._popen.pid
        return pid

    def check(self, source: GrammarSource) -> Verdict:
        """Ask. After CheckerLostError there is no process any more."""
        return self._exchange(source, Verdict, self._limit_s)

    def close(self) -> None:
        """End it at once, in whatever it is doing; twice is harmless."""
        if self._popen.poll() is None:
            self._popen.kill()
            with suppress(subprocess.TimeoutExpired):
                self._popen.wait(_END_LIMIT_S)
        for pipe in (self._popen.stdin, self._popen.stdout):
            with suppress(OSError):
                pipe.close()

    def _exchange(self, message: Setup | GrammarSource, kind: type[A], limit_s: float) -> A:
        try:
            with gevent.Timeout(limit_s):
                send(self._popen.stdin, message)
                return receive(self._popen.stdout, kind)
        except (gevent.Timeout, PeerLostError, OSError) as error:
            self.close()
            raise CheckerLostError(type(error).__name__) from None
        except BaseException:
            # An answer that nobody has read would be taken for that to the next question.
            self.close()
            raise


def child_environment(inherited: dict[str, str]) -> dict[str, str]:
    """What a checker needs to find its code."""
    kept = {name: inherited[name] for name in _INHERITED if inherited.get(name)}
    paths = [kept["PYTHONPATH"]] if "PYTHONPATH" in kept else []
    kept["PYTHONPATH"] = os.pathsep.join([*paths, str(_PACKAGES_ROOT)])
    return kept
