"""What an output must match, as a surface hands it to ``Grammars``.

Knows nothing of llguidance: any thread may make one.
"""

import json
import re
from typing import Literal, NamedTuple, Protocol

_GAP = r"/\n{0,2}/"
"""What models write between their reasoning and their answer."""


class GrammarSource(NamedTuple):
    """A grammar in one of the languages that clients write, alone or inside of another."""

    kind: Literal["json_schema", "regex", "lark", "gbnf", "framed"]
    text: str
    """JSON text of the schema, the regular expression, llguidance's dialect of Lark, that or
    llama.cpp's notation (GBNF), or what ``framed`` writes."""


def framed(source: GrammarSource, frame: str) -> GrammarSource:
    """``source`` where the Lark grammar ``frame`` says ``@answer``."""
    return GrammarSource("framed", json.dumps([*source, frame], ensure_ascii=False))


def after_reasoning(source: GrammarSource, end_tag: str, end_token_id: int | None) -> GrammarSource:
    """Any text up to the first ``end_tag``, that included, and then ``source``.

    For models whose prompt has already opened a reasoning section. With ``end_token_id``, that
    token ends it too: llguidance does not see a special token as the text that it stands for.
    """
    tag = re.escape(end_tag).replace("/", "\\/")
    ends = "tag" if end_token_id is None else f"(tag | /(?s:.*)/ <[{end_token_id}]>)"
    return framed(source, f"start: {ends} gap @answer\ntag[lazy]: /(?s:.*){tag}/\ngap: {_GAP}\n")


class Grammars(Protocol):
    """Checks grammars where that can be stopped."""

    def checked(self, source: GrammarSource, field: str = "grammar") -> str:
        """What goes into ``SequenceSpec.grammar``; waits without holding up other greenlets.

        ``field`` is the field of the request that gave it: errors name it.

        Raises RequestError: VALIDATION if grammars are switched off, or this one is wrong, too
        large, or takes too long; OVERLOADED if too many wait to be checked.
        """
        ...
