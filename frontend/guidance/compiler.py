"""Where the surfaces get their grammars checked; one per front-end process, on gevent.

Owns the queue of grammars that wait, what is known of earlier ones, and the checker's process,
which is started for the first grammar. Knows neither llguidance nor HTTP. Grammars are never
logged.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path

import gevent
from gevent.event import AsyncResult

from common.errors import ErrorKind, RequestError
from common.settings import Settings
from frontend.faults import describe
from frontend.guidance.cache import Verdicts
from frontend.guidance.frames import Setup, Verdict
from frontend.guidance.process import (
    CheckerLostError,
    CheckerProcess,
    Process,
    UnusableTokenizerError,
)
from frontend.guidance.source import GrammarSource
from frontend.limits import invalid

LEAST_WAITING = 32
"""Different grammars that may wait to be checked; not fewer than there are seats for requests."""
PATIENCE = 3.0
"""So many times the limit of one check, a request waits for its turn and its check."""
RETRY_S = 1.0
MOST_LOSSES = 2
"""So many checkers may be lost with a grammar before that counts as its fault: the first may have
been killed by somebody else."""

_log = logging.getLogger(__name__)


class NoGrammars:
    """Where grammars are switched off."""

    def checked(self, source: GrammarSource, field: str = "grammar") -> str:
        """Refuses."""
        raise invalid(f"`{field}`: grammars are switched off on this server")

    def close(self) -> None:
        """There is nothing to end."""


class Checker:
    """Has grammars checked one at a time, each different one once."""

    def __init__(
        self,
        start: Callable[[], Process],
        check_limit_s: float,
        most_waiting: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``start`` gives a running checker, and raises as ``CheckerProcess`` does.

        ``most_waiting``: different grammars that may be under check or wait for it.
        """
        self._start = start
        self._most_waiting = most_waiting
        self._patience_s = PATIENCE * check_limit_s
        self._clock = clock
        self._verdicts = Verdicts()
        self._waiting: dict[GrammarSource, AsyncResult] = {}
        """In the order in which they came; the first one is being checked."""
        self._process: Process | None = None
        self._unusable = False
        self._greenlet: gevent.Greenlet | None = None

    def checked(self, source: GrammarSource, field: str = "grammar") -> str:
        """As ``Grammars`` says; requests with the same grammar share one check."""
        verdict = self._verdicts.get(source, self._clock())
        if verdict is None:
            verdict = self._wait(source)
        if verdict.error:
            raise invalid(f"`{field}` cannot be used: {verdict.error}")
        return verdict.grammar

    def close(self) -> None:
        """End the checker; whoever still waits is told so."""
        if self._greenlet is not None:
            self._greenlet.kill(block=False)
        if self._process is not None:
            self._process.close()
            self._process = None
        for result in self._waiting.values():
            result.set_exception(_unavailable())
        self._waiting.clear()

    def _wait(self, source: GrammarSource) -> Verdict:
        result = self._waiting.get(source)
        if result is None:
            if len(self._waiting) >= self._most_waiting:
                raise _overloaded()
            result = self._waiting[source] = AsyncResult()
            if self._greenlet is None:
                self._greenlet = gevent.spawn(self._work)
        try:
            verdict: Verdict = result.get(timeout=self._patience_s)
        except gevent.Timeout:
            # The check goes on: whoever asks again may find it done.
            raise _overloaded() from None
        return verdict

    def _work(self) -> None:
        """Check whatever waits. Not the requests' greenlets do this: their clients may leave."""
        while self._waiting:
            source, result = next(iter(self._waiting.items()))
            try:
                verdict = self._verdict(source)
            except RequestError as error:
                result.set_exception(error)
            except Exception as error:
                _log.error("a grammar could not be checked: %s", describe(error))
                result.set_exception(_unavailable())
            else:
                self._verdicts.put(source, verdict, self._clock())
                result.set(verdict)
            del self._waiting[source]
        self._greenlet = None

    def _verdict(self, source: GrammarSource) -> Verdict:
        if self._unusable:
            raise _unusable()
        for _ in range(MOST_LOSSES):
            try:
                if self._process is None:
                    self._process = self._start()
                return self._process.check(source)
            except UnusableTokenizerError as error:
                _log.warning(
                    "grammars are refused: the tokenizer cannot be read for them: %s", error
                )
                self._unusable = True
                raise _unusable() from None
            except CheckerLostError as error:
                _log.warning("the grammar checker was lost (%s); another one is started", error)
                self._process = None
        return Verdict(error="it broke its check or took too long", exhausted=True)


def grammars_of(settings: Settings, end_ids: list[int]) -> Checker | NoGrammars:
    """What a server with these settings has; ``end_ids`` are the tokens that end an answer."""
    if settings.disable_grammar_support:
        return NoGrammars()
    setup = Setup(
        tokenizer=str(Path(settings.model_dir) / "tokenizer.json"),
        end_ids=end_ids,
        time_s=settings.grammar_compile_timeout,
        memory_bytes=settings.grammar_memory_limit * 1024 * 1024,
    )
    return Checker(
        lambda: CheckerProcess(setup),
        settings.grammar_compile_timeout,
        max(LEAST_WAITING, settings.max_concurrent_requests),
    )


def _unusable() -> RequestError:
    return invalid("grammars cannot be used with the tokenizer of this model")


def _overloaded() -> RequestError:
    message = "Too many grammars wait to be checked"
    return RequestError(ErrorKind.OVERLOADED, message, retry_after_s=RETRY_S)


def _unavailable() -> RequestError:
    message = "The grammar could not be checked now"
    return RequestError(ErrorKind.UNAVAILABLE, message, retry_after_s=RETRY_S)
