"""The spans of a request in this process: the request itself, validate, send.

Built once, when the request is over. Runs in every front-end process, if traces are sent. The
spans between them (queue, prefill, decode) are the scheduler's, below the same parent. No text.
"""

from collections.abc import Callable

from common.spans import Attribute, Span, Spans, new_span_id
from frontend.exchange import Exchange

_GENERATION_FAILED = 424
_SERVER_ERROR = 500


class RequestTracer:
    """Makes spans of records, and sends them."""

    def __init__(
        self, send: Callable[[Spans], None], model_id: str, wall_clock_ns: Callable[[], int]
    ) -> None:
        """``send`` must not block; ``wall_clock_ns`` counts from the epoch."""
        self._send = send
        self._model_id = model_id
        self._wall_clock_ns = wall_clock_ns

    def finish(self, record: Exchange, method: str, route: str, now: float) -> None:
        """A request is over; nothing happens unless it asked for text and its trace is sampled.

        ``route`` is the template of its path; ``now`` is by the clock of the record.
        """
        if not record.span_id or record.trace is None or not record.generates:
            return
        now_ns = self._wall_clock_ns()
        trace_id, span_id = record.trace.trace_id, record.span_id

        def at(moment: float) -> int:
            return now_ns - round((now - moment) * 1e9)

        def part(name: str, began: float, ended: float, attributes: dict[str, Attribute]) -> Span:
            return Span(trace_id, new_span_id(), span_id, name, at(began), at(ended), attributes)

        whole = Span(
            trace_id, span_id, record.trace.span_id, f"{method} {route}", at(record.began), now_ns,
            self._attributes(record, method, route), "server", _failure(record),
        )  # fmt: skip
        prompt: dict[str, Attribute] = {"gen_ai.usage.input_tokens": record.prompt_tokens}
        generated: dict[str, Attribute] = {"gen_ai.usage.output_tokens": record.generated_tokens}
        validated_at = now if record.submitted_at is None else record.submitted_at
        spans = [whole, part("validate", record.began, validated_at, prompt)]
        if record.sending_at is not None:
            spans.append(part("send", record.sending_at, now, generated))
        self._send(Spans("frontend", spans))

    def _attributes(self, record: Exchange, method: str, route: str) -> dict[str, Attribute]:
        attributes: dict[str, Attribute] = {
            "http.request.method": method,
            "http.route": route,
            "http.response.status_code": record.status,
            "gen_ai.request.model": self._model_id,
            "gen_ai.usage.input_tokens": record.prompt_tokens,
            "gen_ai.usage.output_tokens": record.generated_tokens,
            "millrace.request_id": record.request_id,
        }
        if record.error is not None:
            attributes["error.type"] = record.error
        return attributes


def _failure(record: Exchange) -> str:
    """What a span says of a failure that is not the client's own."""
    failed_late = record.streams and record.error not in (None, "dropped")
    if failed_late or record.status == _GENERATION_FAILED or record.status >= _SERVER_ERROR:
        return record.error or "failed"
    return ""
