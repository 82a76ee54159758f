"""Events from a template are those that are written one by one, to the byte."""

import math

import pytest

from frontend.answers import Template, event
from frontend.runs import Token
from frontend.translate.native import _plain

TEXTS = ["", "a", 'quotes " and \\', "\n\r\t\0\x7f", "é \u2028 😀", "text"]


@pytest.mark.parametrize(
    "document",
    [
        lambda text: {"text": text},
        lambda text: {"model": "text", "choices": [{"text": text, "index": 3}], "usage": None},
        lambda text: {"id": "text-", "text": text, 'te"xt': "text--"},
        lambda text: [text, "text", "text-", "text--"],
    ],
)
@pytest.mark.parametrize("text", TEXTS)
def test_a_template_writes_what_event_writes(document, text: str) -> None:
    assert Template(document).event(text) == event(document(text))


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("logprob", [0.0, -0.0, -1e-7, -12.5, -1 / 3, 1e22, -math.inf, math.nan])
@pytest.mark.parametrize("special", [True, False])
def test_a_plain_native_event_is_what_event_writes(
    text: str, logprob: float, special: bool
) -> None:
    token = Token(151_643, text, text, logprob, special, [], "")
    shown = {"id": 151_643, "text": text, "logprob": logprob, "special": special}
    document = {"index": 7, "token": shown, "generated_text": None, "details": None}
    assert _plain(7, token) == event(document)
