"""Follows the text of a JSON object to its end, whatever the pieces it comes in.

Owns one state machine over characters (RFC 8259). It keeps no text and builds no value. Control
characters inside strings, which the RFC forbids and models write, are told of and break nothing:
where the object ends is clear all the same.
"""

import re
from collections.abc import Callable
from typing import Final

_BLANK = " \t\r\n"
_PLAIN = re.compile(r'[^"\\\x00-\x1f]*')
_WORDS = {"t": "true", "f": "false", "n": "null"}
_HEX = frozenset("0123456789abcdefABCDEF")
_DIGITS: Final = dict.fromkeys("0123456789")
_POINT: Final = {".": "point", "e": "e", "E": "e"}
_NUMBER: Final[dict[str, dict[str, str]]] = {
    "begin": {"-": "minus", "0": "zero", **dict.fromkeys("123456789", "whole")},
    "minus": {"0": "zero", **dict.fromkeys("123456789", "whole")},
    "zero": _POINT,
    "whole": {**dict.fromkeys(_DIGITS, "whole"), **_POINT},
    "point": dict.fromkeys(_DIGITS, "fraction"),
    "fraction": {**dict.fromkeys(_DIGITS, "fraction"), "e": "e", "E": "e"},
    "e": {"+": "sign", "-": "sign", **dict.fromkeys(_DIGITS, "exponent")},
    "sign": dict.fromkeys(_DIGITS, "exponent"),
    "exponent": dict.fromkeys(_DIGITS, "exponent"),
}
"""Part of a number -> character -> the part that it belongs to."""
_WHOLE_NUMBERS = frozenset({"zero", "whole", "fraction", "exponent"})


class ObjectScanner:
    """The state of one scan. The object begins with the first character."""

    def __init__(self) -> None:
        self.done = False
        self.broken = False
        self.at_control = False
        """Whether it has stopped before a control character in a string."""
        self._state: Callable[[str, int], int] = self._begin
        self._open: list[str] = []  # the brackets that close what is open, innermost last
        self._is_key = False
        self._left = ""  # of a word
        self._hex_left = 0
        self._part = "begin"  # of a number

    def scan(self, text: str, at: int) -> int:
        """Scan on from an offset; the offset where the object ends, breaks, or waits for more.

        Or ``at_control``: the caller has to go on behind that character.
        """
        self.at_control = False
        while at < len(text) and not (self.done or self.broken or self.at_control):
            at = self._state(text, at)
        return at

    # --- states: each reads a character or more, or changes the state ---------------------------

    def _begin(self, text: str, at: int) -> int:
        return self._opened(at, "}", self._first_key) if text[at] == "{" else self._break(at)

    def _value(self, text: str, at: int) -> int:
        character = text[at]
        if character in _BLANK:
            return at + 1
        if character == "{":
            return self._opened(at, "}", self._first_key)
        if character == "[":
            return self._opened(at, "]", self._first_item)
        if character == '"':
            self._is_key, self._state = False, self._string
            return at + 1
        if character in _WORDS:
            self._left, self._state = _WORDS[character], self._word
            return at
        self._part, self._state = "begin", self._number
        return at

    def _first_item(self, text: str, at: int) -> int:
        if text[at] == "]":
            return self._closed(at)
        if text[at] in _BLANK:
            return at + 1
        self._state = self._value
        return at

    def _first_key(self, text: str, at: int) -> int:
        return self._closed(at) if text[at] == "}" else self._key(text, at)

    def _key(self, text: str, at: int) -> int:
        if text[at] == '"':
            self._is_key, self._state = True, self._string
        elif text[at] not in _BLANK:
            return self._break(at)
        return at + 1

    def _colon(self, text: str, at: int) -> int:
        if text[at] == ":":
            self._state = self._value
        elif text[at] not in _BLANK:
            return self._break(at)
        return at + 1

    def _after_value(self, text: str, at: int) -> int:
        character = text[at]
        if character == self._open[-1]:
            return self._closed(at)
        if character == ",":
            self._state = self._key if self._open[-1] == "}" else self._value
        elif character not in _BLANK:
            return self._break(at)
        return at + 1

    def _string(self, text: str, at: int) -> int:
        plain = _PLAIN.match(text, at)
        at = at if plain is None else plain.end()
        if at == len(text):
            return at
        if text[at] < " ":
            self.at_control = True
            return at
        if text[at] == "\\":
            self._state = self._escape
        else:
            self._state = self._colon if self._is_key else self._after_value
        return at + 1

    def _escape(self, text: str, at: int) -> int:
        if text[at] == "u":
            self._hex_left, self._state = 4, self._hex
        elif text[at] in '"\\/bfnrt':
            self._state = self._string
        else:
            return self._break(at)
        return at + 1

    def _hex(self, text: str, at: int) -> int:
        if text[at] not in _HEX:
            return self._break(at)
        self._hex_left -= 1
        if not self._hex_left:
            self._state = self._string
        return at + 1

    def _word(self, text: str, at: int) -> int:
        if text[at] != self._left[0]:
            return self._break(at)
        self._left = self._left[1:]
        if not self._left:
            self._state = self._after_value
        return at + 1

    def _number(self, text: str, at: int) -> int:
        part = _NUMBER[self._part].get(text[at])
        if part is not None:
            self._part = part
            return at + 1
        if self._part not in _WHOLE_NUMBERS:
            return self._break(at)
        self._state = self._after_value
        return at

    # --- changes --------------------------------------------------------------------------------

    def _opened(self, at: int, closing: str, state: Callable[[str, int], int]) -> int:
        self._open.append(closing)
        self._state = state
        return at + 1

    def _closed(self, at: int) -> int:
        self._open.pop()
        self._state = self._after_value
        self.done = not self._open
        return at + 1

    def _break(self, at: int) -> int:
        self.broken = True
        return at
