"""From settings to a warm engine, in this process."""

import select

import pytest
import torch

from common.errors import StartupError
from common.messages import Dispatch, NewSequence, SequenceSpec
from common.sampling import SamplingParameters
from common.settings import Settings
from tests.worker.driver import CPU, HistoryModel
from tests.worker.grammars import regex
from tests.worker.tiny import write_tiny_llama
from worker.engine import Engine
from worker.start import start
from worker.warmup import warm_up


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("model")
    write_tiny_llama(directory)
    return str(directory)


def settings(model_dir: str, **changes) -> Settings:
    return Settings(
        **(
            {
                "model_id": "tiny",
                "model_dir": model_dir,
                "max_total_tokens": 200,
                "max_batch_prefill_tokens": 300,
                "device": "cpu",
            }
            | changes
        )
    )


def test_blocks_are_derived_from_memory_or_given(model_dir):
    assert start(settings(model_dir, max_concurrent_requests=2)).blocks == 2 * 13 * 1.25 // 1 + 1
    engine = start(settings(model_dir, max_batch_total_tokens=1000))
    assert engine.blocks == 64
    assert engine.held == 0
    spec = SequenceSpec(0, [1, 2], 1, SamplingParameters())
    engine.apply(Dispatch(1, 1, 8, add=[NewSequence(spec, 0, [], [63])]))
    assert engine.step().items[0].tokens.finish == "length"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"max_batch_total_tokens": 100}, r"max_batch_total_tokens \(100\) is less"),
        ({"num_shard": 2}, "cannot split a model over 2 shards"),
        ({"dtype": "int3"}, "int3"),
        ({"max_total_tokens": 10**10}, "max_total_tokens"),
    ],
)
def test_what_is_impossible_is_one_sentence(model_dir, changes, sentence):
    with pytest.raises(StartupError, match=sentence):
        start(settings(model_dir, **changes))


def test_faults_strike_where_the_setting_asks_for_them(model_dir):
    engine = start(settings(model_dir, debug_faults="test-only:memory@7,8"))
    specs = [SequenceSpec(n, [7, 8 + n], 1, SamplingParameters()) for n in range(2)]
    add = [NewSequence(spec, 0, [], [spec.id + 1]) for spec in specs]
    engine.apply(Dispatch(1, 1, 8, add=add))
    errors = {item.tokens.id: item.error for item in engine.step().items}
    assert errors == {0: "the forward pass failed (MemoryError)", 1: ""}
    with pytest.raises(StartupError, match="debug_faults"):
        start(settings(model_dir, debug_faults="memory@7"))


@pytest.mark.parametrize(
    ("disabled", "error"),
    [(False, ""), (True, "this server cannot follow grammars with this model")],
)
def test_grammars_work_unless_they_are_switched_off(model_dir, disabled, error):
    engine = start(settings(model_dir, disable_grammar_support=disabled))
    spec = SequenceSpec(0, [1, 2], 1, SamplingParameters(), grammar=regex("a"))
    engine.apply(Dispatch(1, 1, 8, add=[NewSequence(spec, 0, [], [1])]))
    result = engine.step()
    if not disabled and not result.items[0].tokens.ids:
        select.select(engine.wakeup_fds, [], [], 20)
        result = engine.step()
    item = engine.take_news()[0][0] if disabled else result.items[0]
    assert (item.error, item.tokens.ids) == (error, [] if disabled else [ord("a")])
    assert len(engine.wakeup_fds) == (0 if disabled else 1)
    engine.close()


@pytest.mark.parametrize(
    ("chunk", "longest", "rows", "blocks", "steps"),
    [
        (100, 1000, 3, 64, [(100,), (1, 1, 1)]),
        (100, 40, 1, 64, [(40, 40, 20), (1,)]),
        (1000, 1000, 500, 5, [(64,), (1, 1, 1, 1)]),
        (100, 17, 1, 6, [(17, 17, 16), (1,)]),
        (1, 1, 1, 2, [(1,), (1,)]),
    ],
)
def test_warm_up_runs_the_largest_chunk_and_a_decode(chunk, longest, rows, blocks, steps):
    model = HistoryModel()
    engine = Engine(model, model.cache(blocks), blocks=blocks, device=CPU, clock=lambda: 0.0)
    warm_up(engine, chunk_tokens=chunk, longest_tokens=longest, rows=rows)
    assert model.steps == steps
    assert engine.held == 0
    assert engine.take_news() == ([], [])


def test_a_model_that_fails_its_warm_up_does_not_start():
    class Broken(HistoryModel):
        def logits(self, hidden):
            return torch.full((len(hidden), 50), torch.nan)

    engine = Engine(Broken(), Broken.cache(8), blocks=8, device=CPU, clock=lambda: 0.0)
    with pytest.raises(StartupError, match="was not a number"):
        warm_up(engine, chunk_tokens=10, longest_tokens=10, rows=1)
