"""Events from a template are those that are written one by one, to the byte."""

import pytest

from frontend.answers import Template, event


@pytest.mark.parametrize(
    "document",
    [
        lambda text: {"text": text},
        lambda text: {"model": "text", "choices": [{"text": text, "index": 3}], "usage": None},
        lambda text: {"id": "text-", "text": text, 'te"xt': "text--"},
        lambda text: [text, "text", "text-", "text--"],
    ],
)
@pytest.mark.parametrize("text", ["", "a", 'quotes " and \\', "\n\r\t\0\x7f", "é \u2028 😀", "text"])
def test_a_template_writes_what_event_writes(document, text: str) -> None:
    assert Template(document).event(text) == event(document(text))
