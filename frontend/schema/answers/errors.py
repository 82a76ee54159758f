"""What clients read when a request fails, as an answer and as an event, in each API."""

from typing import Literal

from frontend.schema.answers import Answer


class ErrorAnswer(Answer, frozen=True, kw_only=True):
    """An error of the native routes, as an answer and as the event that ends a stream."""

    error: str
    """One sentence; it names the field that is wrong."""
    error_type: str
    """What kind of error it is: `validation`, `overloaded`, `generation`, …"""


class OpenAIError(Answer, frozen=True, kw_only=True):
    """The `error` object of the routes under `/v1/`."""

    message: str
    """One sentence; it names the field that is wrong."""
    type: str
    """OpenAI's class of the error."""
    code: str
    """What kind of error it is, in the words of the native routes."""
    param: str | None
    """The field that is wrong, if it is one."""
    http_status_code: int
    """The HTTP status that belongs to the error, also where the stream has begun with 200."""


class OpenAIErrorAnswer(Answer, frozen=True, kw_only=True):
    """An error of the routes under `/v1/`, as an answer and as an event of a stream."""

    error: OpenAIError
    """What went wrong."""
    error_type: str
    """The same as `error.code`, where clients of the native routes look for it."""


class TgiError(Answer, frozen=True, kw_only=True):
    """The `error` object of streams under `/v1/` in TGI's dialect."""

    message: str
    """One sentence; it names the field that is wrong."""
    http_status_code: int
    """Always 422."""


class TgiStreamError(Answer, frozen=True, kw_only=True):
    """An error event of streams under `/v1/`, if the server speaks TGI's dialect there."""

    error: TgiError
    """What went wrong."""
    error_type: str
    """What kind of error it is."""


class AnthropicError(Answer, frozen=True, kw_only=True):
    """The `error` object of the routes under `/v1/messages`."""

    type: str
    """Anthropic's class of the error."""
    message: str
    """One sentence; it names the field that is wrong."""


class AnthropicErrorAnswer(Answer, frozen=True, kw_only=True):
    """An error of the routes under `/v1/messages`, as an answer and as an event of a stream."""

    type: Literal["error"]
    """What this is."""
    error: AnthropicError
    """What went wrong."""
    request_id: str | None
    """Names the request in the server's log."""


class KServeErrorAnswer(Answer, frozen=True, kw_only=True):
    """An error of the routes under `/v2`."""

    error: str
    """One sentence."""
