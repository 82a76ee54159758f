"""What an output must match, as a surface hands it to ``Grammars``.

Knows nothing of llguidance: any thread may make one.
"""

from typing import Literal, NamedTuple, Protocol


class GrammarSource(NamedTuple):
    """A grammar in one of the languages that clients write, or in the library's own."""

    kind: Literal["json_schema", "regex", "lark", "llguidance"]
    text: str
    """JSON text of the schema, the regular expression, llguidance's dialect of Lark, or JSON text
    of llguidance's list of grammars, which only ``compile.after_reasoning`` writes."""


class Grammars(Protocol):
    """Checks grammars where that can be stopped."""

    def checked(self, source: GrammarSource, field: str = "grammar") -> str:
        """What goes into ``SequenceSpec.grammar``; waits without holding up other greenlets.

        ``field`` is the field of the request that gave it: errors name it.

        Raises RequestError: VALIDATION if grammars are switched off, or this one is wrong, too
        large, or takes too long; OVERLOADED if too many wait to be checked.
        """
        ...
