"""A scheduler that keeps streams, as far as front ends see of it: submitted, generated, resumed."""

from dataclasses import dataclass, field
from typing import Any

import msgspec

from common.messages import KeptRun, Resume, Resumed, SequenceTokens, Submit, Tokens
from tests.frontend.fakes import Pipeline, Server


@dataclass
class Keeper:
    """Put in front of a pipeline: remembers what was handed in and what has been generated."""

    pipeline: Pipeline
    kept: dict[int, KeptRun] = field(default_factory=dict)
    """By run, of the latest stream."""
    memo: bytes = b""
    ticket: str = ""
    owner: str = ""
    known: int | None = None
    """Tokens that the scheduler has been told of; None: all."""

    def __post_init__(self) -> None:
        self._send, self._tokens = self.pipeline.send, self.pipeline.link.tokens
        link: Any = self.pipeline.link
        link._send = self.send
        link.tokens = self.tokens

    def send(self, message: msgspec.Struct) -> None:
        if isinstance(message, Resume):
            right = (message.ticket, message.owner) == (self.ticket, self.owner)
            runs = [self.told(self.kept[i]) for i in sorted(self.kept)] if right else []
            self.pipeline.sent.append(message)
            self.pipeline.link.receive(Resumed(message.tag_id, self.memo, runs))
            return
        if isinstance(message, Submit) and message.keep is not None:
            keep = message.keep
            self.ticket, self.owner = keep.ticket, keep.owner
            self.memo = keep.memo or self.memo
            tokens = SequenceTokens(
                message.spec.id, 0, 0, list(message.generated_ids), keep.logprobs, keep.tops
            )
            self.kept[keep.run] = KeptRun(message.spec, tokens)
        self._send(message)

    def tokens(self, message: Tokens) -> None:
        for item in message.items:
            for run, kept in self.kept.items():
                if kept.spec.id == item.id:
                    self.kept[run] = KeptRun(kept.spec, _joined(kept.tokens, item))
        self._tokens(message)

    def told(self, kept: KeptRun) -> KeptRun:
        """As the scheduler would say it, if it knows only so many tokens."""
        tokens = kept.tokens
        if self.known is None:
            return kept
        n = self.known
        return KeptRun(
            kept.spec,
            SequenceTokens(
                tokens.id, 0, 0, tokens.ids[:n], tokens.logprobs[:n], tokens.tops[:n],
                started=tokens.started,
            ),
        )  # fmt: skip


def _joined(past: SequenceTokens, item: SequenceTokens) -> SequenceTokens:
    assert item.index == len(past.ids)
    return SequenceTokens(
        item.id,
        0,
        0,
        past.ids + item.ids,
        past.logprobs + item.logprobs,
        past.tops + item.tops,
        item.finish,
        past.started or item.started,
    )


def keeping(server: Server) -> Keeper:
    return Keeper(server.pipeline)


def blocks(body: bytes) -> list[tuple[str, bytes]]:
    """Each event's id, empty if it has none, and the rest of it."""
    found = []
    for block in body.split(b"\n\n"):
        if block in (b"", b":"):
            continue
        head, _, rest = block.partition(b"\n")
        has = head.startswith(b"id: ")
        found.append((head[4:].decode(), rest) if has else ("", block))
    return found
