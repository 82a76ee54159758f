"""The spans of requests in a front end, and what their sequences carry with them."""

from pathlib import Path
from typing import Any

import pytest

from common.messages import Delivered, Rejected, Submit
from common.spans import Span, Spans, parse_traceparent
from frontend.tracing import RequestTracer
from tests.frontend.fakes import Server, events, serve

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-01", "X-Request-Id": "r1"}
NOW_NS = 1_800_000_000_000_000_000
BODY: dict[str, Any] = {"inputs": "hello"}
STREAMS = [
    ("/generate_stream", BODY),
    ("/v1/completions", {"prompt": "hello", "stream": True}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hello"}], "stream": True}),
    ("/v1/messages", {"messages": [{"role": "user", "content": "hello"}], "stream": True,
                      "max_tokens": 5, "model": "m"}),
]  # fmt: skip


class Traced:
    """A server, and the spans that it has sent."""

    def __init__(self, model_dir: Path) -> None:
        self.sent: list[Spans] = []
        tracer = RequestTracer(self.sent.append, "org/model", lambda: NOW_NS)
        self.server: Server = serve(model_dir, tracer=tracer)

    def spans(self) -> dict[str, Span]:
        """Of the only request, by name."""
        (message,) = self.sent
        assert message.process == "frontend"
        return {span.name: span for span in message.spans}

    def contexts(self) -> list[Any]:
        return [parse_traceparent(m.spec.traceparent) for m in self.server.pipeline.of(Submit)]


@pytest.fixture
def traced(model_dir: Path) -> Traced:
    return Traced(model_dir)


def test_a_trace_is_continued(traced: Traced) -> None:
    assert traced.server.post("/generate", BODY, headers=SAMPLED).status_code == 200
    spans = traced.spans()
    assert set(spans) == {"POST /generate", "validate", "send"}
    whole = spans["POST /generate"]
    assert (whole.trace_id, whole.parent_id, whole.kind) == (TRACE, PARENT, "server")
    assert whole.attributes == {
        "http.request.method": "POST",
        "http.route": "/generate",
        "http.response.status_code": 200,
        "gen_ai.request.model": "org/model",
        "gen_ai.usage.input_tokens": 2,
        "gen_ai.usage.output_tokens": 3,
        "millrace.request_id": "r1",
    }
    for name in ("validate", "send"):
        assert (spans[name].trace_id, spans[name].parent_id) == (TRACE, whole.span_id)
        assert spans[name].kind == "internal"
    assert len({span.span_id for span in spans.values()}) == 3
    (submit,) = traced.server.pipeline.of(Submit)
    assert submit.spec.request == "r1"
    assert submit.spec.traceparent == f"00-{TRACE}-{whole.span_id}-01"


def test_times_are_those_of_the_clock(traced: Traced) -> None:
    clock: Any = traced.server.pipeline.clock
    link = traced.server.pipeline.link
    release, submit = link.release, link.submit

    def slow_submit(*arguments: Any, **named: Any) -> Any:
        clock.now += 2.0
        return submit(*arguments, **named)

    def slow_release(*arguments: Any) -> None:
        clock.now += 3.0
        release(*arguments)

    link.submit, link.release = slow_submit, slow_release  # type: ignore[assignment,method-assign]
    traced.server.post("/generate", BODY, headers=SAMPLED)
    spans = traced.spans()
    whole, validate, send = (spans[name] for name in ("POST /generate", "validate", "send"))
    assert (whole.began_ns, whole.ended_ns) == (NOW_NS - 5_000_000_000, NOW_NS)
    assert (validate.began_ns, validate.ended_ns) == (whole.began_ns, whole.began_ns)
    assert (send.began_ns, send.ended_ns) == (NOW_NS, NOW_NS)


@pytest.mark.parametrize(("path", "body"), STREAMS, ids=[path for path, _ in STREAMS])
def test_streams_have_the_same_spans(traced: Traced, path: str, body: dict[str, Any]) -> None:
    answer = traced.server.post(path, body, headers=SAMPLED)
    assert answer.status_code == 200
    assert answer.text
    spans = traced.spans()
    assert set(spans) == {f"POST {path}", "validate", "send"}
    assert spans["send"].attributes == {"gen_ai.usage.output_tokens": 3}
    assert spans[f"POST {path}"].error == ""


def test_one_trace_for_all_sequences_of_a_request(traced: Traced) -> None:
    traced.server.post("/v1/completions", {"prompt": ["hello", "test"]}, headers=SAMPLED)
    whole = traced.spans()["POST /v1/completions"]
    assert [context.span_id for context in traced.contexts()] == [whole.span_id] * 2
    assert whole.attributes["gen_ai.usage.output_tokens"] == 6


def test_without_a_trace_a_new_one_begins(traced: Traced) -> None:
    for headers in ({}, {"traceparent": f"ff-{TRACE}-{PARENT}-01"}):
        traced.sent.clear()
        traced.server.post("/generate", BODY, headers=headers)
        whole = traced.spans()["POST /generate"]
        assert whole.parent_id == ""
        assert whole.trace_id != TRACE
        assert traced.contexts()[-1] == (whole.trace_id, whole.span_id, True)


def test_a_trace_that_is_not_sampled_has_no_spans(traced: Traced) -> None:
    header = f"00-{TRACE}-{PARENT}-00"
    traced.server.post("/generate", BODY, headers={"traceparent": header})
    assert traced.sent == []
    (submit,) = traced.server.pipeline.of(Submit)
    assert submit.spec.traceparent == header


def test_without_a_collector_traces_are_only_for_the_log(model_dir: Path) -> None:
    server = serve(model_dir)
    server.post("/generate", BODY, headers=SAMPLED)
    server.post("/generate", BODY)
    specs = [message.spec for message in server.pipeline.of(Submit)]
    assert [spec.traceparent for spec in specs] == [SAMPLED["traceparent"], ""]
    assert specs[0].request == "r1"
    assert specs[1].request != ""


@pytest.mark.parametrize("path", ["/info", "/health", "/metrics", "/tokenize", "/nowhere"])
def test_only_generating_requests_are_traced(traced: Traced, path: str) -> None:
    traced.server.get(path, headers=SAMPLED)
    traced.server.post(path, BODY, headers=SAMPLED)
    assert traced.sent == []


def test_a_refused_request_has_no_part_that_sends(traced: Traced) -> None:
    traced.server.post("/generate", {"inputs": ""}, headers=SAMPLED)
    spans = traced.spans()
    assert set(spans) == {"POST /generate", "validate"}
    whole = spans["POST /generate"]
    assert whole.attributes["http.response.status_code"] == 422
    assert whole.attributes["error.type"] == "validation"
    assert whole.error == ""


def test_an_error_of_ours_is_an_error_of_the_span(traced: Traced) -> None:
    def refuse(submit: Submit) -> list[Any]:
        return [Rejected(submit.spec.id, 0, "draining")]

    traced.server.pipeline.answer = refuse
    traced.server.post("/generate", BODY, headers=SAMPLED)
    whole = traced.spans()["POST /generate"]
    assert (whole.error, whole.attributes["http.response.status_code"]) == ("unavailable", 503)


def test_no_span_holds_any_text(traced: Traced) -> None:
    body = {"inputs": "a secret", "parameters": {"stop": ["another secret"]}}
    answer = traced.server.post("/generate_stream", body, headers=SAMPLED)
    assert "hello" in events(answer.content)[-1]["generated_text"]
    assert "secret" not in repr(traced.sent)
    assert "hello" not in repr(traced.sent)


def test_how_old_a_request_was_travels_with_it(traced: Traced) -> None:
    clock: Any = traced.server.pipeline.clock
    encode = traced.server.services.tokenizer.encode

    def slow_encode(*arguments: Any, **named: Any) -> Any:
        clock.now += 1.5
        return encode(*arguments, **named)

    traced.server.services.tokenizer.encode = slow_encode  # type: ignore[method-assign]
    traced.server.post("/generate", BODY)
    (submit,) = traced.server.pipeline.of(Submit)
    assert submit.age_s == 1.5
    (delivered,) = traced.server.pipeline.of(Delivered)
    assert delivered.validation_s == 1.5
