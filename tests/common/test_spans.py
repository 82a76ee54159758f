"""Trace contexts as W3C has them."""

import pytest

from common.spans import TraceContext, new_span_id, new_trace, parse_traceparent

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("header", "is_sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-03", True),
        (f"00-{TRACE}-{SPAN}-02", False),
        (f"cc-{TRACE}-{SPAN}-01-what the future brings", True),
        (f"01-{TRACE}-{SPAN}-01", True),
    ],
)
def test_contexts(header: str, is_sampled: bool) -> None:
    assert parse_traceparent(header) == TraceContext(TRACE, SPAN, is_sampled)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "nonsense",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01\n",
        f"01-{TRACE}-{SPAN}-01more",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}",
    ],
)
def test_what_is_no_context(header: str) -> None:
    assert parse_traceparent(header) is None


def test_contexts_travel_as_headers() -> None:
    for is_sampled in (True, False):
        context = TraceContext(TRACE, SPAN, is_sampled)
        assert parse_traceparent(context.header()) == context


def test_new_ones_are_valid_and_new() -> None:
    root = new_trace()
    assert root.is_sampled
    assert root.span_id == ""
    context = root._replace(span_id=new_span_id())
    assert parse_traceparent(context.header()) == context
    assert new_trace() != root
