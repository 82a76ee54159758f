"""A small scheduler and a model that cannot be fooled, to drive the engine in tests."""

from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace

import torch

from common.messages import (
    BLOCK_TOKENS,
    Dispatch,
    Grant,
    NewSequence,
    Progress,
    SequenceSpec,
    Started,
)
from common.sampling import SamplingParameters
from worker.ahead.runner import AheadRunner
from worker.engine import Engine
from worker.interfaces import UNMINDFUL
from worker.kernels.sampling import UNSEEN

CPU = torch.device("cpu")
GREEDY = SamplingParameters()


RUNNERS = {
    "host": {},
    "ahead": {
        "make_runner": partial(AheadRunner, sequences=2, longest=32, sizes=()),
        "sampling": UNSEEN,
    },
    "recorded": {
        "make_runner": partial(AheadRunner, sequences=40, longest=1000, sizes=(1, 2, 4, 8)),
        "sampling": UNSEEN,
    },
}
"""How steps are computed. The second has to grow; the third pads to what has been recorded."""

default_runner = "host"
"""Set by the fixture ``runner``, for tests that are to pass whatever computes the steps."""


class HistoryModel:
    """Its logits depend on every token before, read back through the block tables.

    The cache holds, at each slot, the token and the position that were written there.
    """

    shares_prefixes = True
    adapters = None

    def __init__(self, vocabulary: int = 50) -> None:
        self.configuration = SimpleNamespace(vocab_size=vocabulary)
        self.steps: list[tuple[int, ...]] = []
        self.logit_rows: list[int] = []
        self.fail_on: set[int] = set()
        self.released: list[int] = []
        self.nan_on: set[int] = set()

    @staticmethod
    def cache(blocks: int) -> torch.Tensor:
        return torch.full((blocks * BLOCK_TOKENS, 2), -1)

    def release(self, sequence: int) -> None:
        self.released.append(sequence)

    def forward(self, inputs, cache):
        self.steps.append(inputs.query_lengths_host)
        if self.fail_on & set(inputs.token_ids.tolist()):
            raise RuntimeError("no such luck")
        assert (
            inputs.query_lengths_host[: inputs.decode_sequences] == (1,) * inputs.decode_sequences
        )
        cache[inputs.slots] = torch.stack((inputs.token_ids, inputs.positions), dim=1)
        assert inputs.lengths.tolist() == list(inputs.lengths_host)
        rows = []
        for table, length, count in zip(
            inputs.block_tables, inputs.lengths_host, inputs.query_lengths_host, strict=True
        ):
            positions = torch.arange(length)
            slots = table[positions // BLOCK_TOKENS] * BLOCK_TOKENS + positions % BLOCK_TOKENS
            tokens, written = cache[slots].unbind(1)
            assert written.tolist() == positions.tolist()
            rows += [
                self.state(tokens[: end + 1].tolist()) for end in range(length - count, length)
            ]
        return torch.tensor(rows, dtype=torch.float64)[inputs.logit_rows]

    def state(self, ids: list[int]) -> list[float]:
        bad = 1.0 if self.nan_on and ids[-1] in self.nan_on else 0.0
        return [sum((token + 1) * (place + 3) for place, token in enumerate(ids)) % 1009, bad]

    def logits(self, hidden):
        self.logit_rows.append(len(hidden))
        tokens = torch.arange(self.configuration.vocab_size, dtype=torch.float64)
        logits = torch.sin(hidden[:, :1] * (tokens + 1) * 0.7311 + tokens) * 4
        logits[hidden[:, 1] > 0] = torch.nan
        return logits.float()

    def next(self, ids: list[int]) -> int:
        return int(self.logits(torch.tensor([self.state(ids)], dtype=torch.float64)).argmax())

    def continuation(self, ids: list[int], count: int) -> list[int]:
        known = list(ids)
        for _ in range(count):
            known.append(self.next(known))
        return known[len(ids) :]


@dataclass
class Record:
    """What a client would have of one sequence."""

    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    tops: list = field(default_factory=list)
    finish: str = ""
    error: str = ""
    started: Started | None = None
    computed: int = 0


class Driver:
    """Hands sequences and blocks to an engine and checks what comes back."""

    def __init__(
        self,
        model,
        cache,
        *,
        blocks: int = 64,
        step_tokens: int = 64,
        guidance=None,
        runner: str | None = None,
        faults=None,
        speculation=None,
        adapters=(),
        memory=UNMINDFUL,
    ) -> None:
        ticks = iter(range(10**9))
        self.model = model
        self.engine = Engine(
            model,
            cache,
            blocks=blocks,
            clock=lambda: float(next(ticks)),
            guidance=guidance,
            faults=faults,
            speculation=speculation,
            adapters=adapters,
            memory=memory,
            **{"device": CPU} | RUNNERS[runner or default_runner],
        )
        self.engine.prepare()
        self.free = list(range(1, blocks))
        self.step_tokens = step_tokens
        self.max_stall_s = 0.0
        self.number = 0
        self.leases: dict[int, list[int]] = {}
        self.records: dict[int, Record] = {}
        self.released: list[int] = []
        self.drafted = 0

    def dispatch(self, *, release=(), add=(), grants=()) -> None:
        self.number += 1
        self.engine.apply(
            Dispatch(
                epoch=1,
                number=self.number,
                step_tokens=self.step_tokens,
                max_stall_s=self.max_stall_s,
                release=list(release),
                add=list(add),
                grants=list(grants),
            )
        )

    def lease(self, tokens: int) -> list[int]:
        count = -(-tokens // BLOCK_TOKENS)
        taken, self.free = self.free[:count], self.free[count:]
        assert len(taken) == count, "the test has too few blocks"
        return taken

    def new(
        self,
        number: int,
        prompt: list[int],
        count: int,
        *,
        sampling: SamplingParameters = GREEDY,
        generated: list[int] | None = None,
        blocks: list[int] | None = None,
        room: int | None = None,
        cached: int = 0,
        attempt: int = 0,
        **spec,
    ) -> NewSequence:
        """With room for everything unless said otherwise."""
        if blocks is None:
            blocks = self.lease(len(prompt) + count if room is None else room)
        self.leases[number] = blocks
        record = self.records.setdefault(number, Record())
        record.error = record.finish = ""
        return NewSequence(
            SequenceSpec(number, prompt, count, sampling, **spec),
            attempt=attempt,
            generated_ids=generated or [],
            blocks=blocks,
            cached_tokens=cached,
            queue_s=0.25,
        )

    def add(self, number: int, prompt: list[int], count: int, **options) -> None:
        self.dispatch(add=[self.new(number, prompt, count, **options)])

    def grant(self, number: int, tokens: int) -> None:
        blocks = self.lease(tokens)
        self.leases[number] = self.leases[number] + blocks
        self.dispatch(grants=[Grant(number, blocks)])

    def release(self, number: int) -> None:
        self.dispatch(release=[number])
        self.free += self.leases.pop(number)

    def step(self) -> list[Progress] | None:
        """One step; None if nobody could advance."""
        return self.enter(self.engine.step())

    def enter(self, result) -> list[Progress] | None:
        """What a step of the engine gave."""
        news, released = self.engine.take_news()
        self.released += released
        items = news + (result.items if result is not None else [])
        for item in items:
            self._enter(item)
        if result is None:
            return None
        self.drafted += result.drafted_tokens
        for tokens in result.ahead:
            assert tokens.finish
            self._enter(Progress(tokens, 0))
        for item in result.behind:
            record = self.records[item.tokens.id]
            assert (record.finish, record.computed) == (item.tokens.finish, 0)
            record.computed = item.computed_tokens
        return items

    def run(self, steps: int = 10_000) -> int:
        """Until nobody can advance; returns how many steps that took."""
        for taken in range(steps):
            if self.step() is None:
                return taken
        raise AssertionError("the engine does not come to rest")

    def _enter(self, item: Progress) -> None:
        record = self.records[item.tokens.id]
        assert not record.error
        assert not record.finish
        record.error, record.computed = item.error, item.computed_tokens
        if item.error:
            assert item.tokens.ids == []
            return
        assert item.tokens.index == len(record.ids)
        assert len(item.tokens.logprobs) == len(item.tokens.ids)
        record.ids += item.tokens.ids
        record.logprobs += item.tokens.logprobs
        record.tops += item.tokens.tops
        record.finish = item.tokens.finish
        if item.tokens.started is not None:
            assert record.started is None
            record.started = item.tokens.started


def fake_driver(**options) -> Driver:
    blocks = options.setdefault("blocks", 64)
    return Driver(HistoryModel(), HistoryModel.cache(blocks), **options)
