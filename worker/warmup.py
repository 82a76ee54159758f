"""The first steps of a worker: what would be slow or impossible later happens before Ready.

Runs in the worker, once or twice at start. Drives the engine as a scheduler would. Knows nothing of
memory sizes; whoever calls it measures.
"""

import itertools
from dataclasses import dataclass

import msgspec

from common.errors import StartupError
from common.messages import BLOCK_TOKENS, Dispatch, NewSequence, SequenceSpec
from common.sampling import SamplingParameters
from worker.engine import Engine
from worker.flight import StepResult

_SAMPLING = SamplingParameters(
    do_sample=True, seed=1, temperature=0.9, top_p=0.9, repetition_penalty=1.1
)
_COUNTED = msgspec.structs.replace(
    _SAMPLING, frequency_penalty=0.1, output_frequency_penalty=0.1, output_presence_penalty=0.1
)
_EVERYTHING = msgspec.structs.replace(_COUNTED, min_p=0.01, top_k=40, typical_p=0.9, top_n_tokens=1)
_ON_DEVICES = (_COUNTED, *[_EVERYTHING] * 7)
"""Of rows in turn, on devices whose kernels are compiled at their first use, and whose memory is
measured here. All rows have what is kept of a sequence for sampling. Most rows, but not all, ask
for what takes the most beside: what all ask for takes less, as no row is copied out and back."""


@dataclass(frozen=True, slots=True)
class Worst:
    """The largest step that there may be: ``rows`` sequences decode, the rest reads prompts."""

    tokens: int
    rows: int
    longest_tokens: int
    """The most that one sequence may have."""
    adapter: str = ""
    """Digest of one, where there are any: steps with adapters are computed otherwise."""

    @property
    def blocks(self) -> int:
        """KV blocks that it needs, block 0 included."""
        prompts = -(-self.tokens // self.longest_tokens)
        return 1 + self.rows + _blocks(self.tokens) + prompts


def warm_up(engine: Engine, worst: Worst, times: int = 2) -> StepResult:
    """Run it, after a step in which its decoding sequences begin; what it cost the last time.

    It is run twice where the first of its kind compiles kernels and takes memory for good. All is
    cut to what the engine's blocks hold. Raises StartupError if the model fails, or memory is
    short.
    """
    rows = max(1, min(worst.rows, worst.tokens, engine.blocks - 1))
    sampling = (_SAMPLING,) if engine.device == "cpu" else _ON_DEVICES
    _run(engine, 1, _prompts([1] * rows, sampling, first=0, block=1, new_tokens=4), rows)
    blocks = engine.blocks - 1 - rows
    left = worst.tokens - rows
    lengths: list[int] = []
    while left > 0 and blocks > 0:
        lengths.append(min(left, worst.longest_tokens, blocks * BLOCK_TOKENS))
        left -= lengths[-1]
        blocks -= _blocks(lengths[-1])
    add = _prompts(lengths, sampling, first=rows, block=1 + rows, new_tokens=1)
    for number in range(2, 2 + times):
        result = _run(engine, number, add, worst.tokens)
    if worst.adapter:
        adapted = [_with_adapter(new, worst.adapter) for new in add]
        result = _run(engine, 2 + times, adapted, worst.tokens)
    engine.reset()
    if engine.device != "cpu":
        _decode_alone(engine, rows, sampling)
        _read_alone(engine, min(worst.tokens, worst.longest_tokens), sampling)
    return result


def _decode_alone(engine: Engine, rows: int, sampling: tuple[SamplingParameters, ...]) -> None:
    """So many sequences, then half of them, and so on: kernels have forms for numbers of them."""
    counts = _halves(rows)
    prompts = _prompts([1] * rows, sampling, first=0, block=1, new_tokens=1 + len(counts))
    _run(engine, 1, prompts, rows)
    for number, (count, left) in enumerate(itertools.pairwise([*counts, 0]), 2):
        _run(engine, number, [], count)
        engine.apply(Dispatch(0, number, count, release=list(range(left, count))))
    engine.reset()


def _read_alone(engine: Engine, tokens: int, sampling: tuple[SamplingParameters, ...]) -> None:
    """A prompt of so many tokens, all of which are scored, then one of half of them, and so on."""
    tokens = min(tokens, (engine.blocks - 1) * BLOCK_TOKENS)
    for number, length in enumerate(_halves(tokens), 1):
        (new,) = _prompts([length], sampling, first=number, block=1, new_tokens=1)
        spec = msgspec.structs.replace(new.spec, prefill_logprobs=True)
        _run(engine, number, [msgspec.structs.replace(new, spec=spec)], length)
    engine.reset()


def _halves(count: int) -> list[int]:
    """So many, half of them, … 1. Halves are rounded up: none is less than half of another."""
    counts = [count]
    while counts[-1] > 1:
        counts.append(-(-counts[-1] // 2))
    return counts


def _prompts(
    lengths: list[int],
    sampling: tuple[SamplingParameters, ...],
    *,
    first: int,
    block: int,
    new_tokens: int,
) -> list[NewSequence]:
    """Prompts of these lengths, with ids and blocks from these on; ``sampling`` of them in turn."""
    add = []
    for number, length in enumerate(lengths, first):
        own = sampling[number % len(sampling)]
        spec = SequenceSpec(number, [0] * length, max_new_tokens=new_tokens, sampling=own)
        blocks = list(range(block, block + _blocks(length)))
        add.append(NewSequence(spec, attempt=0, generated_ids=[], blocks=blocks))
        block += len(blocks)
    return add


def _with_adapter(new: NewSequence, adapter: str) -> NewSequence:
    return msgspec.structs.replace(new, spec=msgspec.structs.replace(new.spec, adapter=adapter))


def _run(engine: Engine, number: int, add: list[NewSequence], tokens: int) -> StepResult:
    """One step, with these sequences beside those that run."""
    engine.apply(Dispatch(epoch=0, number=number, step_tokens=max(1, tokens), add=add))
    result = engine.step() or StepResult()
    items = engine.take_news()[0] + result.items
    failed = next((item.error for item in items if item.error), None)
    if failed is not None:
        raise StartupError(f"the model cannot be run: {failed}; the worker's log says more")
    if result.repeated:
        raise StartupError(
            "the largest step fails (the worker's log says why): lower --max-batch-prefill-tokens"
            " or --max-batch-size, or give more memory"
        )
    return result


def _blocks(tokens: int) -> int:
    return -(-tokens // BLOCK_TOKENS)
