"""From a grammar's source to the text that llguidance reads. Pure: text to text.

Runs in the checker's process, and for ``after_reasoning`` in front ends. Knows no tokenizer and no
limits: whether a text is a good grammar is the checker's question.
"""

import re
from typing import Any

import orjson
from llguidance import regex_to_lark

from frontend.guidance.schemas import prepare_schema
from frontend.guidance.source import GrammarSource

_ANSWER = "answer"
_GAP = r"/\n{0,2}/"
"""What models write between their reasoning and their answer."""
_ASCII_CLASSES = "dws"
"""``\\d``, ``\\w`` and ``\\s`` mean ASCII, as in TGI."""


def compile_grammar(source: GrammarSource) -> str:
    """JSON text of llguidance's list of grammars.

    Raises ValueError for a schema that is no JSON or nests too deep.
    """
    if source.kind == "llguidance":
        return source.text
    return _text([_part(source)])


def after_reasoning(source: GrammarSource, end_tag: str, end_token_id: int | None) -> GrammarSource:
    """Any text up to the first ``end_tag``, that included, and then ``source``.

    For models whose prompt has already opened a reasoning section. With ``end_token_id``, that
    token ends it too: llguidance does not see a special token as the text that it stands for.
    Raises ValueError as ``compile_grammar`` does.
    """
    tag = regex_to_lark(re.escape(end_tag))
    ends = "tag" if end_token_id is None else f"(tag | /(?s:.*)/ <[{end_token_id}]>)"
    lark = f"start: {ends} gap @{_ANSWER}\ntag[lazy]: /(?s:.*){tag}/\ngap: {_GAP}\n"
    parts = [{"name": "reasoning", "lark_grammar": lark}, {**_part(source), "name": _ANSWER}]
    return GrammarSource("llguidance", _text(parts))


def answer_alone(text: str) -> str:
    """The part of ``after_reasoning`` that stood there before."""
    return _text([part for part in orjson.loads(text)["grammars"] if part["name"] == _ANSWER])


def _part(source: GrammarSource) -> dict[str, Any]:
    """One entry of the list."""
    if source.kind == "json_schema":
        return {"json_schema": prepare_schema(orjson.loads(source.text))}
    if source.kind == "regex":
        return {"lark_grammar": f"start: /{regex_to_lark(source.text, _ASCII_CLASSES)}/\n"}
    return {"lark_grammar": source.text}


def _text(parts: list[dict[str, Any]]) -> str:
    try:
        return orjson.dumps({"grammars": parts}).decode()
    except orjson.JSONEncodeError as error:  # a TypeError: it writes less deep than it reads
        raise ValueError(str(error)) from None
