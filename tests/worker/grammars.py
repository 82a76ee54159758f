"""Executors without threads, and guidance over the byte tokenizer, for tests of grammars."""

import json
from concurrent.futures import Executor

import llguidance

from tests.worker.driver import CPU, Driver, HistoryModel
from tests.worker.tiny import VOCABULARY, write_byte_tokenizer
from worker.guidance import Guidance


class Inline(Executor):
    """Does it at once."""

    def submit(self, call, /, *arguments, **named):
        call(*arguments, **named)


class Held(Executor):
    """Does it when told: a compiler that takes its time."""

    def __init__(self) -> None:
        self.waiting = []

    def submit(self, call, /, *arguments, **named):
        self.waiting.append(lambda: call(*arguments, **named))

    def work(self) -> None:
        """The first of what waits."""
        self.waiting.pop(0)()


def byte_guidance(directory, compilers: Executor | None = None) -> Guidance:
    """For models whose token b is byte b; token 0 is special."""
    write_byte_tokenizer(directory)
    tokenizer = llguidance.LLTokenizer(str(directory / "tokenizer.json"), eos_token=0)
    return Guidance(
        tokenizer,
        vocabulary=VOCABULARY,
        threads=1,
        device=CPU,
        compilers=compilers if compilers is not None else Inline(),
    )


def history_driver(guidance: Guidance | None, **options) -> Driver:
    """The history model over bytes."""
    blocks = options.setdefault("blocks", 64)
    return Driver(
        HistoryModel(VOCABULARY), HistoryModel.cache(blocks), guidance=guidance, **options
    )


def regex(pattern: str) -> str:
    return llguidance.LLMatcher.grammar_from_regex(pattern)


def lark(text: str) -> str:
    return llguidance.LLMatcher.grammar_from_lark(text)


def schema(value: dict) -> str:
    return llguidance.LLMatcher.grammar_from_json_schema(json.dumps(value))
