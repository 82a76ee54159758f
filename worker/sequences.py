"""The running sequences: what each is, how far it has come, when it ends.

Runs in the worker. A sequence's whole state is its token ids, its parameters and the blocks that it
holds; ids that come in are checked here, so that a bad one fails its sequence alone. Knows nothing
of tensors, steps or policy: room is what the scheduler has leased.
"""

from collections.abc import Sequence as Items
from dataclasses import dataclass, field

from common.messages import (
    BLOCK_TOKENS,
    NewSequence,
    Progress,
    SequenceSpec,
    SequenceTokens,
    Started,
    WorkerFinish,
)
from worker.guide import Guide
from worker.processors import SamplingRow
from worker.sampler import Chosen
from worker.speculation.speculator import Speculator


class SequenceError(Exception):
    """Ends one sequence: one sentence, without prompt text."""


@dataclass(slots=True, eq=False)
class Sequence:
    """One generation, from its dispatch to its release."""

    spec: SequenceSpec
    attempt: int
    ids: list[int]
    """Prompt and generated tokens."""
    computed: int
    """Tokens at the start whose keys and values are written."""
    blocks: list[int]
    """Leased; block i holds tokens 16 i … 16 i + 15, and what they hold is the room there is."""
    row: SamplingRow
    """The sampler's."""
    table_row: int
    """Its row of the block tables."""
    cached_tokens: int
    queue_s: float
    stop_ids: frozenset[int]
    prompt_length: int
    announce: bool
    """The client has had no token yet: Started goes with the first."""
    limit: int
    """So many tokens are known when it ends by its count."""
    known: int
    """Tokens that exist: ``ids``, and those that launched steps will yield."""
    launched: int
    """Tokens whose keys and values are written once the launched steps have ended."""
    adapter: int = -1
    """Number of its adapter among the worker's; -1: none."""
    guide: Guide | None = None
    """Its place in its grammar, if it has one."""
    waiting: bool = False
    """The guide has not arrived yet: no token can be chosen."""
    speculator: Speculator | None = None
    """Its drafts, if it may have any."""
    last_turn: int = 0
    """When it last took part in a step, in an order over all sequences."""
    prompt_logprobs: list[float] = field(default_factory=list)

    @property
    def id(self) -> int:
        """Chosen by the front end."""
        return self.spec.id

    @property
    def index(self) -> int:
        """Index of the next token among the generated ones."""
        return len(self.ids) - self.prompt_length

    @property
    def in_flight(self) -> bool:
        """Whether a step that has been launched and not read computes it."""
        return self.launched > self.computed

    @property
    def wants_prompt_logprobs(self) -> bool:
        """Whether it reads a prompt whose log-probabilities are to be reported."""
        return self.announce and self.spec.prefill_logprobs

    def finish(self) -> WorkerFinish:
        """Why it ends with the last token; empty while it goes on. The count is looked at first."""
        generated = len(self.ids) - self.prompt_length
        if generated >= self.spec.max_new_tokens:
            return "length"
        if generated and self.ids[-1] in self.stop_ids:
            return "eos_token"
        if self.guide is not None and not self.waiting and self.guide.over:
            return "eos_token"
        return ""

    def take(self, chosen: Items[Chosen]) -> SequenceTokens:
        """Its next tokens, up to its end if one of them is the last: what is said of them."""
        index = self.index
        asks = self.spec.sampling.top_n_tokens > 0
        ids: list[int] = []
        logprobs: list[float] = []
        tops: list[list[tuple[int, float]]] = []
        finish: WorkerFinish = ""
        for token, logprob, top in chosen:
            self.ids.append(token)
            ids.append(token)
            logprobs.append(logprob)
            if asks:
                tops.append(top)
            finish = self.finish()
            if finish:
                break
        started = self.take_started() if self.announce else None
        return SequenceTokens(self.id, self.attempt, index, ids, logprobs, tops, finish, started)

    def take_started(self) -> Started:
        """To be sent with the client's first token, once: it announces no longer."""
        self.announce = False
        logprobs, self.prompt_logprobs = self.prompt_logprobs, []
        return Started(self.queue_s, self.cached_tokens, logprobs)


def begin(
    new: NewSequence, row: SamplingRow, table_row: int, adapters: Items[str] = ()
) -> Sequence:
    """A sequence that has been checked, with its rows."""
    spec = new.spec
    known = len(spec.prompt_ids) + len(new.generated_ids)
    return Sequence(
        spec=spec,
        attempt=new.attempt,
        ids=spec.prompt_ids + new.generated_ids,
        computed=new.cached_tokens,
        blocks=list(new.blocks),
        row=row,
        table_row=table_row,
        cached_tokens=new.cached_tokens,
        queue_s=new.queue_s,
        stop_ids=frozenset(spec.stop_token_ids),
        prompt_length=len(spec.prompt_ids),
        announce=not new.generated_ids,
        limit=len(spec.prompt_ids) + spec.max_new_tokens,
        known=known,
        launched=new.cached_tokens,
        adapter=adapters.index(spec.adapter) if spec.adapter else -1,
    )


def check(new: NewSequence, *, vocabulary: int, blocks: int, adapters: Items[str] = ()) -> None:
    """Raise SequenceError unless a worker with so many blocks and tokens can run ``new``.

    ``adapters``: digests of those that it has.
    """
    spec = new.spec
    if spec.adapter and spec.adapter not in adapters:
        raise SequenceError("the worker has no adapter of these weights")
    if not 0 <= spec.id < 1 << 64:
        raise SequenceError("the sequence's id is not one of a front end")
    if not spec.prompt_ids:
        raise SequenceError("the sequence has no prompt tokens")
    for ids in (spec.prompt_ids, new.generated_ids, list(spec.sampling.logit_bias)):
        if ids and not (min(ids) >= 0 and max(ids) < vocabulary):
            raise SequenceError(f"a token id lies outside the vocabulary of {vocabulary}")
    check_blocks(new.blocks, blocks=blocks)
    known = len(spec.prompt_ids) + len(new.generated_ids)
    cached = new.cached_tokens
    if cached % BLOCK_TOKENS or not 0 <= cached < known:
        raise SequenceError(f"{cached} cached tokens do not fit {known} known ones")
    if cached > len(new.blocks) * BLOCK_TOKENS:
        raise SequenceError(f"{cached} cached tokens lie outside the leased blocks")
    if cached and spec.prefill_logprobs and not new.generated_ids:
        raise SequenceError("log-probabilities of cached prompt tokens cannot be reported")


def check_blocks(leased: Items[int], *, blocks: int) -> None:
    """Raise SequenceError unless these are different blocks among 1 … ``blocks`` - 1."""
    if leased and not (min(leased) > 0 and max(leased) < blocks):
        raise SequenceError(f"a leased KV block is not one of 1 … {blocks - 1}")
    if len(set(leased)) != len(leased):
        raise SequenceError("a KV block is leased twice to the same sequence")


def failure(new: NewSequence, sentence: str) -> Progress:
    """The end of a sequence that never ran here."""
    return Progress(SequenceTokens(new.spec.id, new.attempt, len(new.generated_ids)), 0, sentence)
