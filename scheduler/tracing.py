"""The spans of a sequence: queue, prefill, decode.

Built once, when its record ends, from the moments that the record holds anyway. The span above them
is the front end's, which sends it by itself. Knows no sockets.
"""

from collections.abc import Callable

from common.spans import Attribute, Span, Spans, new_span_id, parse_traceparent
from scheduler.requests import Record

_FAILURES = frozenset({"failed", "expired", "overloaded"})


class SequenceTracer:
    """Makes spans of records that have ended, and sends them."""

    def __init__(
        self,
        send: Callable[[Spans], None],
        clock: Callable[[], float],
        wall_clock_ns: Callable[[], int],
    ) -> None:
        """``send`` must not block. ``clock`` is the records'; the other counts from the epoch."""
        self._send = send
        self._clock = clock
        self._wall_clock_ns = wall_clock_ns

    def ended(self, record: Record) -> None:
        """A record has ended; nothing happens unless its trace is sampled."""
        context = parse_traceparent(record.spec.traceparent)
        if context is None or not context.is_sampled:
            return
        now, now_ns = self._clock(), self._wall_clock_ns()
        failure = record.reason if record.reason in _FAILURES else ""
        over = record.finished_s if record.finished_s >= 0 else now
        moments = [("queue", record.arrival_s)]
        if record.queue_s >= 0:
            moments.append(("prefill", record.arrival_s + record.queue_s))
        if record.first_token_s >= 0:
            moments.append(("decode", record.first_token_s))
        ends = [began for _, began in moments[1:]] + [over]

        def at(moment: float) -> int:
            return now_ns - round((now - moment) * 1e9)

        spans = [
            Span(
                trace_id=context.trace_id,
                span_id=new_span_id(),
                parent_id=context.span_id,
                name=name,
                began_ns=at(began),
                ended_ns=at(ended),
                attributes=_attributes(name, record),
                error=failure if (name, began) == moments[-1] else "",
            )
            for (name, began), ended in zip(moments, ends, strict=True)
        ]
        self._send(Spans("scheduler", spans))


def _attributes(name: str, record: Record) -> dict[str, Attribute]:
    found: dict[str, Attribute] = {
        "millrace.sequence": f"{record.id:x}",
        "millrace.request_id": record.spec.request,
    }
    if name == "queue":
        found["millrace.priority"] = record.priority
    elif name == "prefill":
        found["gen_ai.usage.input_tokens"] = len(record.spec.prompt_ids)
        found["millrace.cached_tokens"] = record.started.cached_tokens if record.started else 0
    else:
        found["gen_ai.usage.output_tokens"] = len(record.generated)
        found["millrace.end"] = record.reason
        found["millrace.preemptions"] = record.preemptions
        found["millrace.attempts"] = record.attempt + 1
    return found
