"""From settings to a warm engine, in this process."""

import os
import select
from time import perf_counter as time

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
from worker.models.model import Model
from worker.start import keep_compiled, start
from worker.warmup import Worst, warm_up


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
    ("name", "kv_dtype"), [("fp8_e5m2", torch.float8_e5m2), ("bfloat16", torch.bfloat16)]
)
def test_a_narrow_cache_holds_more(model_dir, name, kv_dtype):
    room = {"max_concurrent_requests": 2, "dtype": "float32"}
    wide = start(settings(model_dir, **room))
    narrow = start(settings(model_dir, kv_cache_dtype=name, **room))
    for ours, theirs in zip(narrow.cache.layers, wide.cache.layers, strict=True):
        assert ours.dtype == kv_dtype
        assert ours.shape == theirs.shape
    spec = SequenceSpec(0, [1, 2, 3], 3, SamplingParameters())
    narrow.apply(Dispatch(1, 1, 8, add=[NewSequence(spec, 0, [], [5])]))
    taken = [narrow.step().items[0].tokens for _ in range(3)]
    assert [tokens.finish for tokens in taken] == ["", "", "length"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"max_batch_total_tokens": 100}, r"--max-batch-total-tokens \(100\) is less"),
        ({"dtype": "int3"}, "int3"),
        ({"kv_cache_dtype": "int3"}, "int3"),
        ({"max_total_tokens": 10**10}, "--max-total-tokens"),
    ],
)
def test_what_is_impossible_is_one_sentence(model_dir, changes, sentence):
    with pytest.raises(StartupError, match=sentence):
        start(settings(model_dir, **changes))


def test_drafts_where_they_can_be(model_dir):
    engine = start(settings(model_dir, speculate=3, dtype="float32"))
    spec = SequenceSpec(0, [5, 6, 7] * 20, 40, SamplingParameters(repetition_penalty=0.2))
    engine.apply(Dispatch(1, 1, 200, add=[NewSequence(spec, 0, [], list(range(1, 8)))]))
    drafted = 0
    while (result := engine.step()) is not None:
        drafted += result.drafted_tokens
    assert drafted > 0
    assert engine.held == 0


@pytest.mark.parametrize(
    ("drafts", "words"), [(3, "speculates with up to 3"), (0, "this model cannot take tokens back")]
)
def test_the_log_says_whether_there_are_drafts(model_dir, drafts, words, caplog, monkeypatch):
    monkeypatch.setattr(Model, "rolls_back", bool(drafts))
    with caplog.at_level("INFO", logger="worker.start"):
        start(settings(model_dir, speculate=3))
        said = [message for message in caplog.messages if "specul" in message]
        assert len(said) == 1
        assert words in said[0]
        caplog.clear()
        start(settings(model_dir))
        assert "specul" not in caplog.text


def test_where_compiled_kernels_are_kept(monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", "")  # put back at the end
    del os.environ["TRITON_CACHE_DIR"]
    known, gpu = settings("/m", kernel_cache="/kept"), torch.device("cuda")
    keep_compiled(known, CPU)
    keep_compiled(settings("/m"), gpu)
    assert "TRITON_CACHE_DIR" not in os.environ
    keep_compiled(known, gpu)
    assert os.environ["TRITON_CACHE_DIR"] == "/kept/triton"
    keep_compiled(settings("/m", kernel_cache="/other"), gpu)
    assert os.environ["TRITON_CACHE_DIR"] == "/kept/triton"


def test_faults_strike_where_the_setting_asks_for_them(model_dir):
    engine = start(settings(model_dir, debug_faults="test-only:memory@7,8"))
    specs = [SequenceSpec(n, [7, 8 + n], 1, SamplingParameters()) for n in range(2)]
    add = [NewSequence(spec, 0, [], [spec.id + 1]) for spec in specs]
    engine.apply(Dispatch(1, 1, 8, add=add))
    errors = {item.tokens.id: item.error for item in engine.step().items}
    assert errors == {0: "no memory was left for a step of this request", 1: ""}
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
    ("worst", "blocks", "steps"),
    [
        (Worst(100, 3, 1000), 64, [(1, 1, 1), (1, 1, 1, 97)]),
        (Worst(100, 1, 40), 64, [(1,), (1, 40, 40, 19)]),
        (Worst(1000, 3, 1000), 8, [(1, 1, 1), (1, 1, 1, 64)]),
        (Worst(1000, 500, 1000), 5, [(1, 1, 1, 1), (1, 1, 1, 1)]),
        (Worst(1, 1, 1), 2, [(1,), (1,)]),
    ],
)
def test_warm_up_runs_a_full_batch_beside_the_largest_chunk(worst, blocks, steps):
    model = HistoryModel()
    engine = Engine(model, model.cache(blocks), blocks=blocks, device=CPU, clock=lambda: 0.0)
    warm_up(engine, worst)
    assert model.steps == [*steps, steps[-1]]
    assert engine.held == 0


@pytest.mark.parametrize(("device", "wanted"), [("cpu", {0}), ("cuda", {0, 40})])
def test_a_device_that_compiles_kernels_meets_all_of_them_in_the_warm_up(device, wanted):
    class Named(Engine):
        """It computes on a CPU, whatever it says."""

        seen: set[int] = set()

        @property
        def device(self):
            return device

        def apply(self, dispatch):
            self.seen.update(new.spec.sampling.top_k for new in dispatch.add)
            super().apply(dispatch)

    model = HistoryModel()
    engine = Named(model, model.cache(9), blocks=9, device=CPU, clock=lambda: 0.0)
    warm_up(engine, Worst(20, 1, 40))
    assert engine.seen == wanted


def test_the_worst_step_fits_into_its_blocks():
    worst = Worst(100, 3, 40)
    model = HistoryModel()
    engine = Engine(model, model.cache(worst.blocks), blocks=worst.blocks, device=CPU, clock=time)
    warm_up(engine, worst)
    assert model.steps[1:] == [(1, 1, 1, 40, 40, 17)] * 2


def test_a_step_that_fits_only_in_pieces_does_not_start():
    class Small(HistoryModel):
        def forward(self, inputs, cache):
            if len(inputs.token_ids) > 50:
                raise torch.OutOfMemoryError
            return super().forward(inputs, cache)

    engine = Engine(Small(), Small.cache(64), blocks=64, device=CPU, clock=time)
    with pytest.raises(StartupError, match="the largest step fails"):
        warm_up(engine, Worst(60, 3, 40))


def test_a_model_that_fails_its_warm_up_does_not_start():
    class Broken(HistoryModel):
        def logits(self, hidden):
            return torch.full((len(hidden), 50), torch.nan)

    engine = Engine(Broken(), Broken.cache(8), blocks=8, device=CPU, clock=lambda: 0.0)
    with pytest.raises(StartupError, match="was not a number"):
        warm_up(engine, Worst(10, 1, 10))
