"""One sequence's text as its ids arrive; runs in front ends, one object per sequence.

Owns what is held back: an unfinished character and nothing else. Knows neither stop strings nor
events; finding the pieces of single tokens is ``pieces.py``.

The text of a token is what TGI's two cursors give: what the token adds to the text before it, a
leading space included, special tokens written out. Where TGI would wait for ever (a model that
writes U+FFFD, bytes that no continuation can repair) or would hold whole words back, this does not.

What holds, for any ids at all, with P the prompt's ids, G the generated ones, D = decode with
special tokens kept, and S = everything ``push`` returned followed by ``finish``:

* byte-level vocabularies: S == D(P + G)[len(D(P)):], whatever the bytes, if P ends on a character;
* vocabularies with byte fallback: the same, but where a run of byte tokens mixes whole characters
  with bytes that are none: the decoder spoils the whole run, S keeps its characters;
* decoders that treat tokens alike (Metaspace, WordPiece, none): the same always;
* any other decoder: the same where D is prefix-stable and holds no U+FFFD;
* ``text`` is S without the special tokens (but for those to be shown). A special token ends an
  unfinished character.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

from frontend.text.pieces import Pieces
from frontend.text.tokenizer import Tokenizer

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
CONTEXT_TOKENS = 5
"""Tokens before the generation that TGI decodes along with it."""
_MAX_HELD_TOKENS = 4
"""A character has at most 4 bytes; a token of an unfinished one has at least one of them."""


class Detokenizer:
    """Text of one sequence. ``generated_ids`` are pushed at once, as after a recovery.

    ``shown`` are special tokens whose text counts as content, such as the markers of tool calls;
    ``hidden`` are others whose text does not.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt_ids: Sequence[int],
        generated_ids: Iterable[int] = (),
        *,
        shown: frozenset[int] = frozenset(),
        hidden: frozenset[int] = frozenset(),
    ) -> None:
        self._tokenizer = tokenizer
        self._hidden = hidden
        self._shown = shown
        self._stream: _Stream
        if tokenizer.pieces is None:
            self._stream = WindowStream(tokenizer, prompt_ids)
        else:
            self._stream = PieceStream(tokenizer.pieces, at_start=not prompt_ids)
        self._text = ""
        self._parts: list[str] = []
        self.visible = ""
        """What the latest ``push`` or ``finish`` added to ``text``."""
        for token_id in generated_ids:
            self.push(token_id)

    def push(self, token_id: int) -> str:
        """The text of this token, with what was held back before it; special tokens written out.

        Empty while a character is unfinished. For a special token only ``visible`` is content.
        """
        if self._tokenizer.is_special(token_id) or token_id in self._hidden:
            before = self._stream.flush()
            text = before + self._stream.push(token_id) + self._stream.flush()
            self._append(text if token_id in self._shown else before)
            return text
        piece = self._stream.push(token_id)
        self._append(piece)
        return piece

    def finish(self) -> str:
        """What was still held back: the marks of a character that never came."""
        self._append(self._stream.flush())
        return self.visible

    @property
    def text(self) -> str:
        """Text so far without special tokens and without what is held back."""
        if self._parts:
            # PERF: a local with a single reference grows in place, so reading `text` after every
            # token costs O(token), not O(text), as long as nobody keeps the earlier values.
            text, self._text = self._text, ""
            text += "".join(self._parts)
            self._text = text
            self._parts.clear()
        return self._text

    def _append(self, piece: str) -> None:
        self.visible = piece
        if piece:
            self._parts.append(piece)


class _Stream(Protocol):
    def push(self, token_id: int) -> str:
        """Text that is final now."""
        ...

    def flush(self) -> str:
        """The rest; nothing is held afterwards."""
        ...


class PieceStream:
    """Looks each token up. Holds at most 3 bytes, only those that a character may begin with."""

    def __init__(self, pieces: Pieces, *, at_start: bool) -> None:
        self._pieces = pieces
        self._at_start = at_start
        self._held = b""

    def push(self, token_id: int) -> str:
        """Text that is final now."""
        if self._at_start:
            self._at_start = token_id not in self._pieces
            piece = self._pieces.first(token_id)
        else:
            piece = self._pieces[token_id]
        if isinstance(piece, str):
            return self.flush() + piece if piece and self._held else piece
        return self._take(self._held + piece, last=False)

    def flush(self) -> str:
        """The rest; nothing is held afterwards."""
        return self._take(self._held, last=True) if self._held else ""

    def _take(self, data: bytes, *, last: bool) -> str:
        """Decode; bad bytes become marks at once, an unfinished character is held."""
        done = []
        self._held = b""
        while data:
            try:
                done.append(data.decode())
                break
            except UnicodeDecodeError as error:
                done.append(data[: error.start].decode())
                if not last and error.end == len(data) and "end of data" in error.reason:
                    self._held = data[error.start :]
                    break
                bad_bytes = error.end - error.start
                done.append(REPLACEMENT * (bad_bytes if self._pieces.mark_per_byte else 1))
                data = data[error.end :]
        return "".join(done)


class WindowStream:
    """TGI's two cursors over the latest ids, for any decoder; also the reference of the tests.

    Without sight of the bytes a trailing U+FFFD may be an unfinished character, so the token is
    held, but never more than ``_MAX_HELD_TOKENS`` of them without a finished character.
    """

    def __init__(self, tokenizer: Tokenizer, prompt_ids: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._ids = list(prompt_ids[-CONTEXT_TOKENS:])  # from the first cursor on
        self._read = len(self._ids)  # the second cursor
        self._before = self._decode(self._ids)  # text between the cursors
        self._settled = len(self._before.rstrip(REPLACEMENT))  # characters before trailing marks
        self._waited = 0  # tokens held since that number last grew

    def push(self, token_id: int) -> str:
        """Text that is final now."""
        self._ids.append(token_id)
        text = self._decode(self._ids)
        settled = len(text.rstrip(REPLACEMENT))
        if settled > self._settled:  # a token may end one character and begin the next
            self._settled, self._waited = settled, 0
        self._waited += 1
        waits = len(text) <= len(self._before) or text.endswith(REPLACEMENT)
        if waits and self._waited < _MAX_HELD_TOKENS:
            return ""
        return self._advance(text)

    def flush(self) -> str:
        """The rest; nothing is held afterwards."""
        held = len(self._ids) > self._read
        return self._advance(self._decode(self._ids)) if held else ""

    def _advance(self, text: str) -> str:
        new = text[len(self._before) :]
        self._ids = self._ids[self._read :]
        self._read = len(self._ids)
        self._before = self._decode(self._ids)
        self._settled = len(self._before.rstrip(REPLACEMENT))
        self._waited = 0
        return new

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=False)
