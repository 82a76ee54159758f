"""From a grammar's source to the text that llguidance reads. Pure: text to text.

Runs in the checker's process. Knows no tokenizer and no limits: whether a text is a good grammar is
the checker's question.
"""

from typing import Any

import orjson
from llguidance import regex_to_lark
from llguidance.gbnf_to_lark import any_to_lark

from frontend.guidance.schemas import prepare_schema
from frontend.guidance.source import GrammarSource

_ANSWER = "answer"
_NO_SCHEMA = "its schema is not JSON that can be read"
_ASCII_CLASSES = "dws"
"""``\\d``, ``\\w`` and ``\\s`` mean ASCII, as in TGI."""


def compile_grammar(source: GrammarSource) -> str:
    """JSON text of llguidance's list of grammars.

    Raises ValueError, with a reason, for a schema that is no JSON or nests too deep, and for a
    grammar that is not GBNF.
    """
    if source.kind != "framed":
        return _text([_part(source)])
    kind, text, frame = orjson.loads(source.text)
    answer = _part(GrammarSource(kind, text))
    return _text([{"name": "frame", "lark_grammar": frame}, {**answer, "name": _ANSWER}])


def answer_alone(text: str) -> str:
    """Of what ``framed`` has come to, what stood there before."""
    return _text([part for part in orjson.loads(text)["grammars"] if part["name"] == _ANSWER])


def _part(source: GrammarSource) -> dict[str, Any]:
    """One entry of the list."""
    if source.kind == "json_schema":
        return {"json_schema": prepare_schema(_schema(source.text))}
    if source.kind == "regex":
        return {"lark_grammar": f"start: /{regex_to_lark(source.text, _ASCII_CLASSES)}/\n"}
    return {"lark_grammar": _lark(source.text) if source.kind == "gbnf" else source.text}


def _schema(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        raise ValueError(_NO_SCHEMA) from None


def _lark(text: str) -> str:
    try:
        return any_to_lark(text)
    except RecursionError:
        raise ValueError("its rules nest too deep") from None
    except Exception as error:  # what it raises is no more special
        raise ValueError(str(error)) from None


def _text(parts: list[dict[str, Any]]) -> str:
    try:
        return orjson.dumps({"grammars": parts}).decode()
    except orjson.JSONEncodeError:  # a TypeError: it writes less deep than it reads
        raise ValueError(_NO_SCHEMA) from None
