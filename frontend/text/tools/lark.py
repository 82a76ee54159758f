"""The parts of Lark grammars that all formats of tool calls share; runs in front ends.

Written for llguidance's dialect. Calls are written as chat templates write them, with one space
after a colon or comma; inside of arguments at most one blank stands between two tokens.
"""

import copy
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from frontend.guidance.schemas import prepare_schema, schemas_in
from frontend.text.tools.format import TokenId
from frontend.text.tools.tool import Tool

_LENIENT = {"lenient": True}
"""What llguidance cannot demand of arguments, such as ``uniqueItems``, is left to the model, which
reads the whole schema in its prompt."""
_IRREGULAR = re.compile(r"(?<!\\)(?:\\\\)*(?:\(\?(?:<?[=!]|>)|\\[1-9ABGZbkz])")
"""Found in patterns that look around or back, which llguidance cannot demand either."""
_OPEN = frozenset(
    {
        "additionalProperties",
        "patternProperties",
        "unevaluatedProperties",
        "propertyNames",
        "minProperties",
        "allOf",
        "anyOf",
        "oneOf",
        "if",
        "$ref",
    }
)
"""Keywords by which an object has properties that ``properties`` does not name."""


def literal(text: str) -> str:
    """A text, as it stands."""
    return json.dumps(text)


NEWLINE = literal("\n")


def marker(text: str, token_id: TokenId) -> str:
    """A marker: its token, if it is one, since models write that; else its text."""
    found = token_id(text)
    return literal(text) if found is None else f"<[{found}]>"


def some(item: str, separator: str, *, parallel: bool) -> str:
    """One item, or several if calls may be parallel."""
    return f"{item} ({separator} {item})*" if parallel else item


def one_of(tools: Sequence[Tool], prefix: str) -> str:
    """Any of the tools' numbered rules."""
    return " | ".join(f"{prefix}_{index}" for index in range(len(tools)))


def objects(tools: Sequence[Tool], key: str) -> str:
    """Rules: ``call`` is ``{"name": …, KEY: …}`` for any of the tools."""
    lines = [f"call: {one_of(tools, 'call')}"]
    for index, tool in enumerate(tools):
        head = f'{{"name": {json.dumps(tool.name, ensure_ascii=False)}, "{key}": '
        lines.append(f"call_{index}: {literal(head)} arguments_{index} {literal('}')}")
    return "\n".join([*lines, arguments(tools)])


def arguments(tools: Sequence[Tool]) -> str:
    """Rules: ``arguments_0`` and so on, the tools' arguments."""
    return "\n".join(
        f"arguments_{index}: {_arguments(tool.parameters)}" for index, tool in enumerate(tools)
    )


def text_without(marked: str, *, first: str = "") -> str:
    """A regular expression: text without a marker in it; empty, or begins as given."""
    body = f"({first}(?s:.*))?" if first else "(?s:.*)"
    return f"/{body}/ & ~/(?s:.*){regex(marked)}(?s:.*)/"


def up_to(name: str, marked: str, token_id: TokenId, *, first: str = "") -> str:
    """Rules: ``NAME`` is text that begins as given, up to a marker and with it.

    A marker that is no token is part of the text's expression, which then ends lazily: a rule of
    the parser could not take back what the text had already swallowed.
    """
    upper = name.upper()
    found = token_id(marked)
    if found is not None:
        return f"{name}: {upper} <[{found}]>\n{upper}: {text_without(marked, first=first)}"
    end = regex(marked)
    body = f"/{first}(?s:.*){end}/ & ~/(?s:.*){end}(?s:.+)/"
    return f"{name}[lazy]: {upper}\n{upper}: {body}"


def regex(text: str) -> str:
    """A text in a regular expression."""
    return re.escape(text).replace("/", "\\/")


def _arguments(parameters: Mapping[str, Any]) -> str:
    """A schema embedded as it is, so that its own root resolves ``$ref``."""
    opened = any(parameters.get(keyword) not in (None, False) for keyword in _OPEN)
    if not parameters.get("properties") and not opened:
        return literal("{}")
    schema = {**copy.deepcopy(dict(parameters)), "type": "object", "x-guidance": _LENIENT}
    for part in schemas_in(schema):
        if isinstance(part.get("pattern"), str) and _IRREGULAR.search(part["pattern"]):
            del part["pattern"]
    return f"%json {json.dumps(prepare_schema(schema))}"
