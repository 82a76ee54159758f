"""Keeps back text that may turn out to be the beginning of a stop string.

For the surfaces whose answers end before the stop string. The search runs over all generated text
and knows how much of its end is in doubt; text of special tokens takes part in it, but is never
shown.
"""


class Withheld:
    """The end of the text that has not been shown yet."""

    def __init__(self) -> None:
        self._text = ""
        self._hidden: list[bool] = []
        """One per character of ``_text``."""

    def push(self, text: str, *, hidden: bool = False) -> None:
        """Append generated text."""
        self._text += text
        self._hidden.extend([hidden] * len(text))

    def release(self, keep: int) -> str:
        """What may be shown of all but the last ``keep`` characters, which stay."""
        count = len(self._text) - keep
        text, hidden = self._text[:count], self._hidden[:count]
        self._text, self._hidden = self._text[count:], self._hidden[count:]
        if any(hidden):
            return "".join(c for c, secret in zip(text, hidden, strict=True) if not secret)
        return text
