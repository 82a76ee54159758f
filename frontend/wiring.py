"""Builds one front-end process: settings, text, sockets, routes.

Runs in the gunicorn worker after it has been forked and patched for gevent.
"""

import logging
from collections.abc import Callable, Iterable
from importlib import metadata
from typing import Any

import gevent

from common.collector import settle
from common.errors import ErrorKind, RequestError, StartupError
from common.failure import record_failure
from common.settings import Settings, load
from frontend.app import create_app
from frontend.faults import describe
from frontend.guidance.compiler import grammars_of
from frontend.pool import Offload
from frontend.services import Services
from frontend.text.template import ChatTemplate
from frontend.text.tokenizer import Tokenizer
from frontend.text.tools.detected import OutputStyle
from frontend.unanswered import Unanswered
from frontend.watch import Watcher
from frontend.wires import Wires

_log = logging.getLogger(__name__)

FIRST_WORD_S = 10.0
"""So long a new process waits for the scheduler's first word before it accepts connections."""
LAST_WORDS_S = 5
"""So long after the grace a stopping process may still tell its clients that it ends. More than
requests may arrive after the stop (``head_wait.py``), for the grace may be 0."""
ROUND_S = 1.0
"""So often everybody is told by then: there may be some who have come since the last time."""

LEAST_WAITING = 64
"""Large prompts that may wait to be tokenized; not fewer than there are seats for, or a burst of
them would be refused while seats are free."""


class FrontEnd:
    """The WSGI application of one process, and how to stop it."""

    def __init__(self, settings: Settings) -> None:
        """Loads the tokenizer and opens the sockets. Raises StartupError."""
        tokenizer, template = load_text(settings)
        self._grace_s = settings.graceful_termination_timeout
        gevent.get_hub().print_exception = _lost_greenlet
        self._wires = Wires(
            settings.runtime_dir, settings.num_replicas, settings.queue_timeout or 0.0
        )
        self._offload = Offload(
            settings.validation_workers, max(LEAST_WAITING, settings.max_concurrent_requests)
        )
        self._watcher = Watcher()
        self._unanswered = Unanswered()
        self._grammars = grammars_of(settings, tokenizer.stop_token_ids)
        self._app = create_app(
            Services(
                settings=settings,
                link=self._wires.link,
                tokenizer=tokenizer,
                template=template,
                style=OutputStyle.of(template, tokenizer),
                offload=self._offload,
                watcher=self._watcher,
                grammars=self._grammars,
                version=version(),
                tracer=self._wires.tracer_of(settings),
                outbox=self._wires.outbox,
            )
        )
        self._wires.start()
        # RACE: a request that came before the scheduler's first word would be refused.
        self._wires.link.heard.wait(FIRST_WORD_S)
        settle()

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """One request."""
        with self._unanswered:
            answer: Iterable[bytes] = self._app(environ, start_response)
        return answer

    def stop_gracefully(self) -> None:
        """Let what runs go on, but end it with an error when the grace is over.

        Does not block: the handler of a signal calls it.
        """
        self._wires.link.stop()
        gevent.spawn_later(self._grace_s, self._end_requests)

    def close(self) -> None:
        """Close the sockets, end the grammar checker."""
        self._wires.close()
        self._watcher.close()
        self._grammars.close()

    def _end_requests(self) -> None:
        """Until this process ends, which is when nobody is left, or ``LAST_WORDS_S`` later."""
        error = RequestError(
            ErrorKind.UNAVAILABLE, "The server is shutting down", retry_after_s=1.0
        )
        while True:
            self._wires.link.fail_all(error)
            self._unanswered.fail_all(error)
            gevent.sleep(ROUND_S)


def _lost_greenlet(
    context: object, kind: type[BaseException], error: BaseException, trace: object
) -> None:
    """Called by gevent for an error that ended a greenlet: one line, without its words."""
    if not issubclass(kind, gevent.GreenletExit):
        _log.error("a greenlet ended: %s", describe(error))


def load_text(settings: Settings) -> tuple[Tokenizer, ChatTemplate | None]:
    """The model's tokenizer and chat template. Raises StartupError."""
    tokenizer = Tokenizer.load(settings.model_dir, settings.tokenizer_config_path)
    template = ChatTemplate.load(settings.model_dir, settings.tokenizer_config_path)
    return tokenizer, template


def version() -> str:
    """The version of the installed package."""
    try:
        return metadata.version("millrace")
    except metadata.PackageNotFoundError:
        return "0.0.0"


def application(*, is_start: bool) -> FrontEnd:
    """What gunicorn calls in each worker. Raises StartupError.

    At the server's start the failure is recorded, which ends all of it; later, others may serve.
    """
    settings = load()
    try:
        return FrontEnd(settings)
    except StartupError as error:
        if is_start:
            record_failure(settings, "frontend", str(error))
        raise
