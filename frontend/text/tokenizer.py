"""One model's tokenizer: text to ids and back; runs in front ends, shared by all their threads.

Owns the model's ``tokenizer.json`` and the questions asked of it: which ids end a generation, which
are special, what one id reads as. Knows nothing of requests. A long text takes long here: callers
keep it off the event loop.
"""

from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import tokenizers

from common.errors import ErrorKind, RequestError, StartupError
from frontend.text.model_files import (
    read_object,
    read_tokenizer_config,
    special_tokens,
    token_content,
)
from frontend.text.pieces import Pieces

_MOST_IDS = 1 << 31
"""Token ids are smaller."""


class EncodedToken(NamedTuple):
    """An id and the bytes of the UTF-8 input it came from, ``start`` included, ``stop`` not."""

    id: int
    start: int
    stop: int


class EncodedTokens:
    """The tokens of a text, 12 bytes each: a long text has millions."""

    def __init__(self, ids: Iterable[int], starts: Iterable[int], stops: Iterable[int]) -> None:
        self._columns = array("I", ids), array("I", starts), array("I", stops)

    def __len__(self) -> int:
        return len(self._columns[0])

    def __getitem__(self, part: slice) -> list[EncodedToken]:
        """Some of them, as objects."""
        return [EncodedToken(*row) for row in zip(*(c[part] for c in self._columns), strict=True)]


class Tokenizer:
    """A loaded tokenizer. Immutable but for caches, so any thread may use it."""

    def __init__(
        self,
        tokenizer: tokenizers.Tokenizer,
        *,
        special: dict[str, str] | None = None,
        stop_token_ids: list[int] | None = None,
    ) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._named = dict(special or {})
        self._special_ids = _mark_special(tokenizer, self._named.values())
        self._texts: dict[int, str] = {}
        self._stop_token_ids = list(stop_token_ids or [])
        self.pieces = Pieces.of(tokenizer)
        """What each id adds to a text; None where the decoder does not allow that view."""

    @classmethod
    def load(
        cls, model_dir: str | Path, tokenizer_config_path: str | Path | None = None
    ) -> "Tokenizer":
        """The tokenizer of a model directory. Raises ``StartupError``."""
        path = Path(model_dir) / "tokenizer.json"
        if not path.is_file():
            raise StartupError(
                f"{model_dir} has no tokenizer.json: prepare the model first, so that its"
                " tokenizer is converted, or choose a model that ships one."
            )
        try:
            tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise StartupError(
                f"{path} is not a tokenizer that can be loaded ({error}): download it again"
                " or install a newer `tokenizers`."
            ) from None
        config = read_tokenizer_config(model_dir, tokenizer_config_path)
        special = special_tokens(config)
        _mark_special(tokenizer, _flagged_special(config))
        eos = special.get("eos_token")
        eos_id = None if eos is None else tokenizer.token_to_id(eos)
        return cls(tokenizer, special=special, stop_token_ids=_stop_ids(Path(model_dir), eos_id))

    # --- text to ids --------------------------------------------------------------------------

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Ids of a text. Raises ``RequestError`` for text that is not Unicode.

        PERF: ``encode_batch`` lets go of the interpreter lock, ``encode`` does not: with it 2 MB of
        text on another thread held up every stream of the process for two seconds.
        """
        _check_unicode(text)
        (encoding,) = self._tokenizer.encode_batch_fast(
            [text], add_special_tokens=add_special_tokens
        )
        ids: list[int] = encoding.ids
        return ids

    def encode_with_offsets(self, text: str, *, add_special_tokens: bool = True) -> EncodedTokens:
        """Ids of a text with the bytes each came from; added special tokens are at 0, 0."""
        _check_unicode(text)
        (encoding,) = self._tokenizer.encode_batch([text], add_special_tokens=add_special_tokens)
        spans = encoding.offsets
        at = range(len(text) + 1) if text.isascii() else _byte_offsets(text)
        return EncodedTokens(
            encoding.ids, (at[start] for start, _ in spans), (at[stop] for _, stop in spans)
        )

    # --- ids to text --------------------------------------------------------------------------

    def token_text(self, token_id: int) -> str:
        """One id decoded alone, special tokens kept; empty outside the vocabulary."""
        text = self._texts.get(token_id)
        if text is None:
            text = self.decode([token_id], skip_special_tokens=False)
            if self._tokenizer.id_to_token(token_id) is not None:  # so the cache stays finite
                self._texts[token_id] = text
        return text

    def piece(self, token_id: int) -> bytes:
        """What one id adds to a text before it, such as the space before a word, in UTF-8."""
        piece = self.token_text(token_id) if self.pieces is None else self.pieces[token_id]
        return piece.encode() if isinstance(piece, str) else piece

    def decode(self, ids: list[int], *, skip_special_tokens: bool) -> str:
        """Text of ids; those outside the vocabulary are left out.

        Nothing is cleaned up afterwards, whatever ``clean_up_tokenization_spaces`` says: a stream
        could not be. Raises ``RequestError`` for numbers that cannot be ids.
        """
        try:
            text: str = self._tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)
        except OverflowError:
            raise RequestError(
                ErrorKind.VALIDATION, "token ids must be between 0 and 4294967295"
            ) from None
        return text

    # --- what the ids mean --------------------------------------------------------------------

    def is_special(self, token_id: int) -> bool:
        """Whether an id is one of the tokenizer's special ones."""
        return token_id in self._special_ids

    @property
    def special_ids(self) -> frozenset[int]:
        """All of them."""
        return frozenset(self._special_ids)

    @property
    def stop_token_ids(self) -> list[int]:
        """Ids that end a generation, without repetition; a new list."""
        return list(self._stop_token_ids)

    @property
    def bos_token(self) -> str | None:
        """Text of the token that begins a sequence."""
        return self._named.get("bos_token")

    @property
    def eos_token(self) -> str | None:
        """Text of the token that ends a sequence."""
        return self._named.get("eos_token")

    @property
    def vocabulary_size(self) -> int:
        """Number of tokens, added ones included; a model may have rows for more."""
        size: int = self._tokenizer.get_vocab_size(with_added_tokens=True)
        return size


def _check_unicode(text: str) -> None:
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError:
        raise RequestError(
            ErrorKind.VALIDATION, "the text holds a lone surrogate, which is not a character"
        ) from None


def _byte_offsets(text: str) -> list[int]:
    """For each character offset, the end included, the offset in UTF-8."""
    offsets = [0]
    at = 0
    for character in text:
        code = ord(character)
        at += 1 if code < 0x80 else 2 if code < 0x800 else 3 if code < 0x10000 else 4
        offsets.append(at)
    return offsets


def _flagged_special(config: dict[str, Any]) -> list[str]:
    """Tokens that the tokenizer configuration itself flags as special."""
    decoder = config.get("added_tokens_decoder")
    if not isinstance(decoder, dict):
        return []
    flagged = (entry for entry in decoder.values() if isinstance(entry, dict))
    contents = (token_content(entry) for entry in flagged if entry.get("special"))
    return [content for content in contents if content is not None]


def _mark_special(tokenizer: tokenizers.Tokenizer, contents: Iterable[str]) -> frozenset[int]:
    """Flag the vocabulary's tokens among ``contents``; the ids of all that are flagged now.

    A token the vocabulary lacks is left out: a new id would have no row in the model.
    """
    added = tokenizer.get_added_tokens_decoder()
    marked = []
    for content in contents:
        token_id = tokenizer.token_to_id(content)
        if token_id is None:
            continue
        token = added.get(token_id)
        if token is None:
            marked.append(tokenizers.AddedToken(content, special=True, normalized=False))
        elif not token.special:
            token.special = True
            marked.append(token)
    if marked:
        tokenizer.add_special_tokens(marked)
    added = tokenizer.get_added_tokens_decoder()
    return frozenset(token_id for token_id, token in added.items() if token.special)


def _stop_ids(model_dir: Path, eos_id: int | None) -> list[int]:
    """The ids that end a generation.

    A list in ``generation_config.json`` is the whole answer. A single id there is joined by the
    tokenizer's EOS: TGI stops at the latter, transformers at the former, and a model whose files
    disagree means both. Without either, ``config.json`` is asked.
    """
    generation = read_object(model_dir / "generation_config.json") or {}
    said = _ids(generation.get("eos_token_id"))
    if isinstance(generation.get("eos_token_id"), list) and said:
        return said
    found = said if eos_id is None or eos_id in said else [*said, eos_id]
    if found:
        return found
    config = read_object(model_dir / "config.json") or {}
    inner = config.get("text_config")
    nested = inner.get("eos_token_id") if isinstance(inner, dict) else None
    return _ids(config.get("eos_token_id")) or _ids(nested)


def _ids(value: object) -> list[int]:
    values = value if isinstance(value, list) else [value]
    ids = (v for v in values if type(v) is int and 0 <= v < _MOST_IDS)
    return list(dict.fromkeys(ids))
