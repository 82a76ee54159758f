"""Error kinds: what a client sees of each, and who is to blame.

One typed table, mapped to HTTP once (in the front end). A request's error becomes its final
message; a process's error ends the process with ``StartupError``'s sentence.
"""

from enum import Enum
from typing import NamedTuple


class _Row(NamedTuple):
    error_type: str
    http_status: int
    metric: str
    prefix: str


class ErrorKind(Enum):
    """TGI's ``error_type``, HTTP status, ``err`` label, and the fixed beginning of the text."""

    VALIDATION = _Row("validation", 422, "validation", "Input validation error: ")
    OVERLOADED = _Row("overloaded", 429, "overloaded", "")
    GENERATION = _Row("generation", 424, "generation", "Request failed during generation: ")
    INCOMPLETE = _Row("incomplete_generation", 500, "incomplete", "")
    TEMPLATE = _Row("template_error", 422, "template", "Template error: ")
    TOOL = _Row("tool_error", 422, "validation", "Tool error: ")
    SUFFIX = _Row("suffix not supported", 422, "validation", "")
    BATCH_SIZE = _Row("batch size exceeded", 422, "validation", "")
    MALFORMED = _Row("validation", 400, "validation", "")
    MEDIA_TYPE = _Row("validation", 415, "validation", "")
    TOO_LARGE = _Row("validation", 413, "validation", "")
    UNAUTHORIZED = _Row("unauthorized", 401, "validation", "")
    NOT_FOUND = _Row("not_found", 404, "validation", "")
    GONE = _Row("gone", 410, "validation", "")
    TIMEOUT = _Row("timeout", 408, "timeout", "")
    UNAVAILABLE = _Row("unavailable", 503, "unavailable", "")
    HEALTH = _Row("healthcheck", 503, "healthcheck", "")

    @property
    def error_type(self) -> str:
        """The ``error_type`` of TGI's error body."""
        return self.value.error_type

    @property
    def http_status(self) -> int:
        """The status where the answer has not begun yet."""
        return self.value.http_status

    @property
    def metric(self) -> str:
        """The ``err`` label."""
        return self.value.metric


class RequestError(Exception):
    """Ends one request. ``message`` is what the client reads, without the kind's prefix."""

    def __init__(
        self, kind: ErrorKind, message: str, *, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = kind.value.prefix + message
        self.retry_after_s = retry_after_s


class StartupError(Exception):
    """Ends a process at start: one sentence that says what is wrong and what to do."""
