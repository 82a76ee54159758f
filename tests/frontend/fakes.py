"""Stand-ins for what surrounds a front end: a tiny tokenizer, a scheduler with a worker, a clock.

The pipeline speaks the real messages to the real link, so that only sockets and tensors are fake.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import falcon.testing
import gevent
import msgspec
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from common.errors import ErrorKind, RequestError
from common.messages import (
    PROTOCOL_VERSION,
    Accepted,
    Cancel,
    Delivered,
    ReplicaStatus,
    Scrape,
    Scraped,
    SequenceSpec,
    SequenceTokens,
    Started,
    Status,
    Submit,
    Tokens,
)
from common.settings import Settings
from frontend.app import create_app
from frontend.guidance.source import GrammarSource
from frontend.link import Link
from frontend.pool import Offload
from frontend.runs import Run, Token
from frontend.services import Services
from frontend.text.template import ChatTemplate
from frontend.text.tokenizer import Tokenizer as TextTokenizer
from frontend.text.tools.detected import OutputStyle
from frontend.tracing import RequestTracer
from frontend.watch import Watcher

WORDS = ["hello", "world", "Paris", "stop", "here", "test"]
TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def write_model(
    directory: Path, *, template: str | None = TEMPLATE, special: tuple[str, ...] = ()
) -> Path:
    """A model directory with a byte-level tokenizer: every byte, a few words, ``</s>``, ``<s>``."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: i for i, character in enumerate(alphabet)}
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        cuts = [(word[:end], word[end]) for end in range(1, len(word))]
        for left, right in [*cuts, ("\u0120", word)]:
            if left + right not in vocabulary:
                vocabulary[left + right] = len(vocabulary)
                merges.append((left, right))
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = [AddedToken(text, special=True) for text in ("</s>", "<s>", "<|call|>", *special)]
    tokenizer.add_special_tokens(specials)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    config: dict[str, Any] = {"bos_token": "<s>", "eos_token": "</s>"}
    if template is not None:
        config["chat_template"] = template
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    (directory / "config.json").write_text("{}")
    return directory


def settings(**changes: Any) -> Settings:
    """Settings of a test server."""
    return Settings(**{"model_id": "org/model", "model_dir": "/nowhere", **changes})


@dataclass
class Clock:
    """Time that stands still unless told otherwise."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Pipeline:
    """A scheduler and a worker in one: answers what the link sends.

    ``reply`` gives the ids that a sequence would generate without limits; the end token is added.
    """

    tokenizer: TextTokenizer
    reply: Callable[[SequenceSpec], list[int]]
    clock: Callable[[], float] = field(default_factory=Clock)
    per_message: int = 1
    """Tokens of a sequence in one message."""
    pause_s: float = 0.0
    """Between two messages."""
    cached_tokens: int = 0
    mute: bool = False
    """Accept sequences, but generate nothing."""
    sent: list[msgspec.Struct] = field(default_factory=list)
    answer: Callable[[Submit], list[msgspec.Struct] | None] | None = None
    """What to answer instead, if not None."""

    def __post_init__(self) -> None:
        self.link = Link(7, 1, self.send, self.clock)
        self.status()

    def status(self, epoch: int = 1, *, ready: bool = True, accepting: bool = True) -> None:
        facts = {"kv_tokens": 4096, "dtype": "float32", "device": "cpu"} if ready else {}
        replica = ReplicaStatus(replica=0, ready=ready, **facts)
        self.link.receive(
            Status(version=PROTOCOL_VERSION, epoch=epoch, replicas=[replica], accepting=accepting)
        )

    def send(self, message: msgspec.Struct) -> None:
        self.sent.append(message)
        if isinstance(message, Submit):
            gevent.spawn(self._run, message)
        elif isinstance(message, Scrape):
            self.link.receive(Scraped(tag_id=message.tag_id, text=b"tgi_queue_size 0\n"))

    def _run(self, submit: Submit) -> None:
        special = self.answer(submit) if self.answer is not None else None
        if special is not None:
            for message in special:
                self.link.receive(message)
            return
        self.link.receive(Accepted(id=submit.spec.id, attempt=submit.attempt))
        if self.mute:
            return
        for item in self.items(submit):
            self.link.tokens(Tokens(incarnation=1, step=1, items=[item]))
            gevent.sleep(self.pause_s)

    def items(self, submit: Submit) -> list[SequenceTokens]:
        """The whole continuation of a sequence."""
        spec = submit.spec
        ids = [*self.reply(spec), *(spec.stop_token_ids or [])][: spec.max_new_tokens]
        ends = (number for number, token in enumerate(ids) if token in spec.stop_token_ids)
        ids = ids[: next(ends, len(ids)) + 1]
        found = []
        for first in range(len(submit.generated_ids), len(ids), self.per_message):
            part = ids[first : first + self.per_message]
            end = first + len(part) == len(ids)
            reason = "eos_token" if part[-1] in spec.stop_token_ids else "length"
            count = spec.sampling.top_n_tokens
            found.append(
                SequenceTokens(
                    id=spec.id,
                    attempt=submit.attempt,
                    index=first,
                    ids=part,
                    logprobs=[-0.5 * (first + k + 1) for k in range(len(part))],
                    tops=[[(t, -0.5), (t + 1, -1.5)][:count] for t in part] if count else [],
                    finish=reason if end else "",
                    started=(
                        Started(
                            queue_s=0.25,
                            cached_tokens=self.cached_tokens,
                            prefill_logprobs=(
                                [-1.0] * (len(spec.prompt_ids) - 1) if spec.prefill_logprobs else []
                            ),
                        )
                        if first == len(submit.generated_ids)
                        else None
                    ),
                )
            )
        return found

    def of(self, kind: type) -> list[Any]:
        """The messages of one kind that the link has sent."""
        return [message for message in self.sent if isinstance(message, kind)]

    def check_released(self, success: bool | None = None) -> None:
        """Every submitted sequence was let go exactly once, and none is left."""
        submitted = {message.spec.id for message in self.of(Submit)}
        delivered = [message.id for message in self.of(Delivered)]
        assert sorted(delivered) == sorted(submitted)
        assert self.link.live == 0
        assert len({message.id for message in self.of(Cancel)}) == len(self.of(Cancel))
        if success is not None:
            assert {message.success for message in self.of(Delivered)} <= {success}


@dataclass
class Grammars:
    """Takes every grammar for what it is, but for those whose text is ``bad``."""

    checks: list[GrammarSource] = field(default_factory=list)

    def checked(self, source: GrammarSource, field: str = "grammar") -> str:
        self.checks.append(source)
        if source.text == "bad":
            raise RequestError(ErrorKind.VALIDATION, f"`{field}` cannot be used: it is bad")
        return f"{source.kind}: {source.text}"


@dataclass
class Server:
    """An application over a pipeline, with Falcon's test client."""

    client: falcon.testing.TestClient
    pipeline: Pipeline
    services: Services

    def post(self, path: str, body: Any, **kwargs: Any) -> falcon.testing.Result:
        return self.client.simulate_post(path, json=body, **kwargs)

    def get(self, path: str, **kwargs: Any) -> falcon.testing.Result:
        return self.client.simulate_get(path, **kwargs)


def serve(
    model_dir: Path,
    reply: str = " hello world",
    *,
    template: bool = True,
    tracer: RequestTracer | None = None,
    **changes: Any,
) -> Server:
    """A server whose model answers every prompt with ``reply``."""
    tokenizer = TextTokenizer.load(str(model_dir))
    ids = tokenizer.encode(reply, add_special_tokens=False)
    pipeline = Pipeline(tokenizer, lambda spec: ids)
    services = Services(
        settings=settings(**changes),
        link=pipeline.link,
        tokenizer=tokenizer,
        template=(found := ChatTemplate.load(str(model_dir)) if template else None),
        style=OutputStyle.of(found, tokenizer),
        offload=Offload(1, 64),
        watcher=Watcher(),
        grammars=Grammars(),
        version="1.2.3",
        tracer=tracer,
        clock=pipeline.clock,
        wall_clock=lambda: 1_700_000_000.0,
    )
    return Server(falcon.testing.TestClient(create_app(services)), pipeline, services)


def events(data: bytes) -> list[Any]:
    """The data events of an event stream; ``[DONE]`` stays a string."""
    found: list[Any] = []
    for block in data.decode().split("\n\n"):
        if block.startswith("data: "):
            text = block.removeprefix("data: ")
            found.append(text if text == "[DONE]" else json.loads(text))
        else:
            assert block in ("", ":"), block
    return found


class Plain:
    """A dialect that is easy to read."""

    def tokens(self, run: Run, tokens: list[Token]) -> bytes:
        return b"".join(b"[%s]" % token.text.encode() for token in tokens)

    def failure(self, error: RequestError, run: Run | None = None) -> bytes:
        return b"!" + error.kind.error_type.encode()

    def end(self) -> bytes:
        return b"."
