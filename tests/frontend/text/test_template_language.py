"""Jinja as templates use it, expression by expression: as transformers, or refused on purpose."""

from pathlib import Path

import pytest

from common.errors import RequestError, StartupError
from frontend.text.template import ChatTemplate
from tests.frontend.text.rendering import TOOLS, clock_of_transformers, ours, theirs

CHAT = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]

LINES = (Path(__file__).parent / "templates" / "expressions.txt").read_text(encoding="utf-8")
SAME = {
    part.split("\n", 1)[0].strip(): part.strip().splitlines()[1:] for part in LINES.split("## ")[1:]
}
"""One template a line; those that fail in transformers have lines of their own."""

REFUSED = {
    "{{ messages | pprint }}": "no bound on its cost",
    "{{ 'a b' | wordwrap(1) }}": "no bound on its cost",
    "{{ '<b>x</b>' | striptags }}": "for web pages",
    "{{ {'a': 1} | xmlattr }}": "for web pages",
    "{{ 'http://x.y' | urlize }}": "for web pages",
    "{{ lipsum() | length }}": "for web pages",
    "{{ 'a'.encode() }}": "bytes have methods that make much out of little",
    "{{ 'a\tb'.expandtabs(4) }}": "makes much out of little",
    "{{ 'x'.translate({120: 'y'}) }}": "makes much out of little",
    "{{ 'a{:>{}}'.format('x', 5) }}": "a width that stands elsewhere",
    "{{ messages | tojson(indent=40) }}": "too wide",
    "{{ 'a' | center(20000) }}": "too wide",
    "{{ 10 ** 3000 }}": "too large",
}
"""What transformers renders and we do not, and why."""


@pytest.fixture(scope="module", autouse=True)
def _clock():
    with clock_of_transformers():
        yield


@pytest.mark.parametrize("kind", SAME)
def test_the_same_language(kind):
    assert len(SAME[kind]) > 3
    for source in SAME[kind]:
        for options in ({}, {"tools": TOOLS}):
            assert ours(source, CHAT, **options) == theirs(source, CHAT, **options), source


@pytest.mark.parametrize("source", REFUSED)
def test_refused_on_purpose(source):
    assert theirs(source, CHAT) is not None
    with pytest.raises((RequestError, StartupError)):
        ChatTemplate({"default": source}).render(CHAT)
