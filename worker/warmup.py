"""The first steps of a worker: what would be slow or impossible later happens before Ready.

Runs in the worker, once or twice at start. Drives the engine as a scheduler would. Knows nothing of
memory sizes; whoever calls it measures.
"""

from common.errors import StartupError
from common.messages import BLOCK_TOKENS, Dispatch, NewSequence, SequenceSpec
from common.sampling import SamplingParameters
from worker.engine import Engine

_SAMPLING = SamplingParameters(
    do_sample=True, seed=1, temperature=0.9, top_p=0.9, repetition_penalty=1.1
)


def warm_up(engine: Engine, *, chunk_tokens: int, longest_tokens: int, rows: int) -> None:
    """A step with the largest chunk, then one in which ``rows`` sequences decode.

    Both are cut to what the engine's blocks hold. ``longest_tokens`` is the most that one sequence
    may have. Raises StartupError if the model fails.
    """
    room = (engine.blocks - 1) * BLOCK_TOKENS
    left = min(chunk_tokens, room)
    lengths: list[int] = []
    while left > 0 and sum(_blocks(length) for length in lengths) < engine.blocks - 1:
        free = room - sum(_blocks(length) for length in lengths) * BLOCK_TOKENS
        lengths.append(min(left, longest_tokens, free))
        left -= lengths[-1]
    _run(engine, lengths)
    _run(engine, [1] * min(rows, engine.blocks - 1))
    engine.reset()


def _run(engine: Engine, lengths: list[int]) -> None:
    """One step over prompts of these lengths, each of which yields its only token."""
    add = []
    first = 1
    for number, length in enumerate(lengths):
        spec = SequenceSpec(number, [0] * length, max_new_tokens=1, sampling=_SAMPLING)
        blocks = list(range(first, first + _blocks(length)))
        add.append(NewSequence(spec, attempt=0, generated_ids=[], blocks=blocks))
        first += len(blocks)
    engine.apply(Dispatch(epoch=0, number=1, step_tokens=max(1, sum(lengths)), add=add))
    result = engine.step()
    items, _ = engine.take_news()
    items += result.items if result is not None else []
    failed = next((item.error for item in items if item.error), None)
    if failed is not None:
        raise StartupError(f"the model cannot be run: {failed}; the worker's log says more")


def _blocks(tokens: int) -> int:
    return -(-tokens // BLOCK_TOKENS)
