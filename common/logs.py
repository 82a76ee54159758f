"""Logging of every process: one line per event on standard output, JSON if asked for.

Owns the format, and that equal warnings do not flood it. Records carry ``request`` (a request id)
and ``trace`` (a trace id) where known. Prompts and generated text are never logged, by anybody.
"""

import atexit
import logging
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TextIO

import orjson

from common.messages import SequenceSpec
from common.spans import parse_traceparent

BURST = 5
"""So many equal warnings are written at once …"""
WINDOW_S = 10.0
"""… within so long; further ones are counted, and told in one line when it is over."""
_MOST_KINDS = 256
"""Kinds of warnings that are told apart."""

_IDS = ("request", "trace", "replica", "sequence")
_TEXT = "%(asctime)s %(levelname)-7s {process:<11} %(message)s"

_Key = tuple[str, int, str]


def about(spec: SequenceSpec) -> dict[str, str]:
    """What ``extra`` of a line about a sequence holds."""
    context = parse_traceparent(spec.traceparent)
    told = {"sequence": f"{spec.id:x}", "request": spec.request}
    told["trace"] = "" if context is None else context.trace_id
    return {name: value for name, value in told.items() if value}


class JsonFormatter(logging.Formatter):
    """One JSON object per line: timestamp (UTC, RFC 3339), level, process, message, ids."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """Also puts a traceback, and further ``fields``, if there are any, into the object."""
        line: dict[str, object] = {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname,
            "process": self._process,
            "target": record.name,
            "message": record.getMessage(),
        }
        line.update({key: getattr(record, key) for key in _IDS if hasattr(record, key)})
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


class TextFormatter(logging.Formatter):
    """For people: time, level, process, message, and the ids that the message does not name."""

    def __init__(self, process: str) -> None:
        super().__init__(_TEXT.format(process=process))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """The line without a traceback."""
        text = super().formatMessage(record)
        found = {key: getattr(record, key) for key in _IDS if hasattr(record, key)}
        return text + "".join(f" {k}={v}" for k, v in found.items() if f"{k}={v}" not in text)


@dataclass(slots=True)
class _Kind:
    """Warnings that are alike, within one window."""

    began_s: float
    last: logging.LogRecord
    seen: int = 1


class CalmHandler(logging.StreamHandler[TextIO]):
    """Writes records; of warnings that are alike only the first few, and then their number.

    Warnings are alike if they come from the same logger and place, whatever is filled in. The
    number is written with the first record after their window, or at the end of the process.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stream)
        self._clock = clock
        self._kinds: OrderedDict[_Key, _Kind] = OrderedDict()
        self._is_counting = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, or count it."""
        if self._is_counting:
            self.tell(self._clock() - WINDOW_S)
        if record.levelno < logging.WARNING or self._is_rare(record):
            super().emit(record)

    def tell(self, before_s: float) -> None:
        """Write the counts of the windows that began before then."""
        self._is_counting = False
        for key, kind in list(self._kinds.items()):
            if kind.began_s > before_s:
                self._is_counting |= kind.seen > BURST
                continue
            del self._kinds[key]
            if kind.seen > BURST:
                super().emit(_summary(kind))

    def _is_rare(self, record: logging.LogRecord) -> bool:
        told = record.getMessage() if record.msg == "%s" else str(record.msg)
        key = (record.name, record.levelno, told)
        now = self._clock()
        kind = self._kinds.get(key)
        if kind is None or now - kind.began_s >= WINDOW_S:
            self._kinds[key] = _Kind(now, record)
            self._kinds.move_to_end(key)
            if len(self._kinds) > _MOST_KINDS:
                self.tell(self._kinds[next(iter(self._kinds))].began_s)
            return True
        kind.seen += 1
        kind.last = record
        self._is_counting |= kind.seen > BURST
        return kind.seen <= BURST


def _summary(kind: _Kind) -> logging.LogRecord:
    last = kind.last
    return logging.makeLogRecord(
        {
            "name": last.name,
            "levelno": last.levelno,
            "levelname": last.levelname,
            "msg": "repeated %d times more within %d s: %s",
            "args": (kind.seen - BURST, WINDOW_S, last.getMessage()),
        }
    )


def set_up(process: str, *, json_output: bool, level: str = "INFO") -> None:
    """Send this process's log records to standard output; called once at start.

    What would end up on standard error otherwise, warnings and the reason of a crash, goes there,
    too.
    """
    handler = CalmHandler(sys.stdout)
    handler.setFormatter(_formatter(process, json_output=json_output))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    logging.raiseExceptions = False
    atexit.register(handler.tell, float("inf"))
    sys.excepthook = _crashed
    threading.excepthook = _thread_crashed


def say(process: str, sentence: str, *, json_output: bool, level: int = logging.ERROR) -> str:
    """One line of a process that cannot use ``logging`` where it stands."""
    name = logging.getLevelName(level)
    record = {"name": process, "levelno": level, "levelname": name, "msg": sentence}
    return _formatter(process, json_output=json_output).format(logging.makeLogRecord(record))


def _formatter(process: str, *, json_output: bool) -> logging.Formatter:
    return JsonFormatter(process) if json_output else TextFormatter(process)


def _crashed(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    logging.getLogger("crash").critical("this process ends", exc_info=(kind, error, trace))


def _thread_crashed(arguments: threading.ExceptHookArgs) -> None:
    error = arguments.exc_value
    if error is not None and not isinstance(error, SystemExit):
        logging.getLogger("crash").critical("a thread ends", exc_info=error)
