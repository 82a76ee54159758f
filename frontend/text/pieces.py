"""What a single token adds to a text; runs in front ends.

Most decoders treat every token alike wherever it stands (but for the very first one), so a token's
contribution can be looked up instead of decoded anew. ``Pieces.of`` recognises those decoders by
their configuration and answers None for every other one. Knows nothing of streams or requests.

A piece is a ``str`` where the token is whole characters, ``bytes`` where it is not.
"""

import json
import re
from typing import Any, Final

import tokenizers

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_ANCHOR = re.compile(r"[A-Za-z]")
_AFTER_FUSE = {"Strip", "Replace"}
_PER_TOKEN = {"Replace", "ByteFallback", "Fuse", "Strip"}


def _byte_characters() -> dict[str, int]:
    """The characters in which byte-level vocabularies write bytes (GPT-2's table)."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    table = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in printable)
    table.update({chr(256 + index): byte for index, byte in enumerate(others)})
    return table


_BYTE_OF: Final = _byte_characters()


class Pieces:
    """The contribution of each id, worked out once. Thread-safe: racing writers write the same."""

    def __init__(
        self, tokenizer: tokenizers.Tokenizer, *, byte_level: bool, byte_fallback: bool, anchor: int
    ) -> None:
        self._tokenizer = tokenizer
        self._byte_level = byte_level
        self._byte_fallback = byte_fallback
        self._anchor = anchor
        self._anchor_text: str = tokenizer.decode([anchor], skip_special_tokens=False)
        self._known: dict[int, str | bytes] = {}

    @property
    def mark_per_byte(self) -> bool:
        """True where the decoder writes one U+FFFD per bad byte, not one per bad character."""
        return self._byte_fallback

    @classmethod
    def of(cls, tokenizer: tokenizers.Tokenizer) -> "Pieces | None":
        """The pieces of a tokenizer; None if its decoder looks at more than one token."""
        decoder = tokenizer.decoder
        stages = _stages(None if decoder is None else json.loads(decoder.__getstate__()))
        if stages is None:
            return None
        kinds = [stage["type"] for stage in stages]
        anchor = _find_anchor(tokenizer)
        if anchor is None:
            return None
        return cls(
            tokenizer,
            byte_level=kinds == ["ByteLevel"],
            byte_fallback="ByteFallback" in kinds,
            anchor=anchor,
        )

    def __getitem__(self, token_id: int) -> str | bytes:
        """What the token adds after others. An id outside the vocabulary adds nothing."""
        piece = self._known.get(token_id)
        if piece is None:
            piece = self._known[token_id] = self._work_out(token_id)
        return piece

    def first(self, token_id: int) -> str | bytes:
        """What the token makes at the very beginning, where decoders drop a leading space."""
        piece = self[token_id]
        if isinstance(piece, bytes):
            return piece
        text: str = self._tokenizer.decode([token_id], skip_special_tokens=False)
        return text

    def __contains__(self, token_id: int) -> bool:
        return self._tokenizer.id_to_token(token_id) is not None

    def _work_out(self, token_id: int) -> str | bytes:
        token = self._tokenizer.id_to_token(token_id)
        if token is None:
            return ""
        raw = self._bytes_of(token)
        if raw is None:
            both = self._tokenizer.decode([self._anchor, token_id], skip_special_tokens=False)
            text: str = both[len(self._anchor_text) :]
            return text
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return raw

    def _bytes_of(self, token: str) -> bytes | None:
        """The bytes a token stands for; None where it stands for text."""
        if self._byte_level:
            values = [_BYTE_OF.get(character) for character in token]
            if None in values:  # an added token, written in characters
                return token.encode()
            return bytes(value for value in values if value is not None)
        found = _BYTE_TOKEN.fullmatch(token) if self._byte_fallback else None
        return None if found is None else bytes([int(found[1], 16)])


def _stages(decoder: dict[str, Any] | None) -> list[dict[str, Any]] | None:
    """The steps of a decoder that treats every token alike; None for any other decoder."""
    if decoder is None:
        return []
    if decoder["type"] in ("ByteLevel", "Metaspace", "WordPiece"):
        return [decoder]
    if decoder["type"] != "Sequence":
        return None
    stages: list[dict[str, Any]] = decoder["decoders"]
    if [stage["type"] for stage in stages] == ["ByteLevel"]:
        return stages
    fused = False
    for stage in stages:
        if stage["type"] not in (_AFTER_FUSE if fused else _PER_TOKEN) or stage.get("stop"):
            return None
        if stage["type"] == "Replace" and len(stage["pattern"].get("String", "")) != 1:
            return None
        fused = fused or stage["type"] == "Fuse"
    return stages


def _find_anchor(tokenizer: tokenizers.Tokenizer) -> int | None:
    """An ordinary token to put before another one, so that the other is not the first."""
    added = tokenizer.get_added_tokens_decoder()
    for token_id in range(tokenizer.get_vocab_size(with_added_tokens=True)):
        token = tokenizer.id_to_token(token_id)
        if token is None or token_id in added or _BYTE_TOKEN.fullmatch(token):
            continue
        if _ANCHOR.search(tokenizer.decode([token_id], skip_special_tokens=False)):
            return token_id
    return None
