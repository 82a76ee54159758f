"""Event streams: tokens in, bytes out, a comment when nothing happens.

An ``EventStream`` is the body that the server iterates. It ends with exactly one terminal event,
whatever happens, and lets its generation go exactly once: at the end, or when the server closes it
because a write failed.
"""

import errno
import logging
from collections.abc import Callable
from typing import Protocol

from common.errors import ErrorKind, RequestError
from frontend.express import Express
from frontend.faults import describe
from frontend.generation import ClientGoneError, Generation
from frontend.runs import Run, Token

KEEP_ALIVE_S = 15.0
"""After so much silence a comment is written."""
KEEP_ALIVE = b":\n\n"

_log = logging.getLogger(__name__)


class Dialect(Protocol):
    """Turns what a generation yields into the events of one surface."""

    def tokens(self, run: Run, tokens: list[Token]) -> bytes:
        """The events of new tokens; the last of them may end the run."""

    def failure(self, error: RequestError, run: Run | None = None) -> bytes:
        """The event of an error, of one run or of the whole request."""

    def end(self) -> bytes:
        """What stands at the end of the stream, after an error too."""


class EventStream:
    """The body of a streamed answer."""

    def __init__(
        self,
        generation: Generation,
        dialect: Dialect,
        on_close: Callable[[RequestError | ClientGoneError | None], None],
        keep_alive_s: float = KEEP_ALIVE_S,
        express: Express | None = None,
    ) -> None:
        """``on_close`` is called once, with what ended the stream early or None.

        ``express`` takes events from other greenlets, while the one that iterates waits for them.
        """
        self._generation = generation
        self._dialect = dialect
        self._on_close = on_close
        self._keep_alive_s = keep_alive_s
        self._express = express
        self._begun = False
        self._flowing = False
        """Whether the first text was sent."""
        self._closed = False

    def __iter__(self) -> "EventStream":
        return self

    def __next__(self) -> bytes:
        """The next bytes to write, which may hold the events of several tokens.

        The first call returns nothing to write: the server then sends the headers at once.
        """
        if self._closed:
            raise StopIteration
        if not self._flowing:
            return self._begin()
        data = self._next()
        early = None if self._express is None else self._express.settle()
        if early is None:
            return data
        return early if data == KEEP_ALIVE else early + data

    def _next(self) -> bytes:
        try:
            news = self._generation.step(self._keep_alive_s)
            if not news:
                return KEEP_ALIVE
            data = b"".join([self._events(run, tokens) for run, tokens in news])
        except ClientGoneError as gone:
            self._leave(gone)
            # The end of the body would tell one who only sends no more that this was all.
            raise BrokenPipeError(errno.EPIPE, "the client has left") from None
        except RequestError as error:
            self._close(error)
            return self._dialect.failure(error) + self._dialect.end()
        except Exception as error:
            # The client gets an event, not a broken connection; the text stays out of the log.
            _log.error("a stream failed: %s", describe(error))
            failed = RequestError(ErrorKind.INCOMPLETE, "Incomplete generation")
            self._close(failed)
            return self._dialect.failure(failed) + self._dialect.end()
        if self._generation.over:
            data += self._dialect.end()
            errors = [run.error for run in self._generation.runs if run.error is not None]
            self._close(errors[0] if errors else None)
        return data

    def close(self) -> None:
        """The server is done with the stream; if that is too early, the client has gone."""
        self._leave(ClientGoneError())

    def _begin(self) -> bytes:
        """What comes up to the first text, which is noted."""
        if not self._begun:
            self._begun = True
            return b""
        self._flowing = True
        data = next(self)
        if data == KEEP_ALIVE:
            self._flowing = False
        else:
            self._generation.flows()
            if self._express is not None:
                self._express.needs_help = self._generation.interrupt
                self._generation.forward(self._hurry)
        return data

    def _hurry(self, run: Run, tokens: list[Token]) -> bool:
        """In the greenlet that receives: whether plain tokens of a run make an event by now."""
        events = self._dialect.tokens(run, tokens)
        if events and self._express is not None:
            self._express.put(events)
        return bool(events)

    def _events(self, run: Run, tokens: list[Token]) -> bytes:
        events = self._dialect.tokens(run, tokens) if tokens else b""
        if run.error is not None:
            events += self._dialect.failure(run.error, run)
        return events

    def _leave(self, gone: ClientGoneError) -> None:
        """Nobody reads any more."""
        if self._express is not None:
            self._express.drop()
        self._close(gone)

    def _close(self, why: RequestError | ClientGoneError | None) -> None:
        if not self._closed:
            self._closed = True
            self._generation.close()
            self._on_close(why)
