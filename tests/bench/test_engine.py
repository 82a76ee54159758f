import pytest
import torch

import worker.start
from bench.engine import KV_TOKENS, InstantScheduler, ready_engine
from tests.worker.driver import CPU, HistoryModel
from tests.worker.tiny import write_tiny_llama
from worker.engine import Engine


@pytest.fixture
def engine():
    ticks = iter(range(10**9))
    return Engine(
        HistoryModel(),
        HistoryModel.cache(9),
        blocks=9,
        device=CPU,
        clock=lambda: float(next(ticks)),
    )


def test_every_prompt_gets_its_tokens_and_all_blocks_come_back(engine):
    scheduler = InstantScheduler(engine)
    prompts = [[number, 5, 6] for number in range(10)]
    for _ in range(2):  # four streams of two blocks fill the cache
        record = scheduler.run(prompts, 4, 20)
        assert record.tokens == 200
        assert len(record.first_s) == 10
        assert len(record.gaps_s) == 190
        assert engine.held == 0


def test_every_prompt_may_have_a_number_of_tokens_of_its_own(engine):
    record = InstantScheduler(engine).run([[1, 2], [3, 4]], 2, [2, 5])
    assert sorted(len(text) for text in record.texts) == [4, 7]


@pytest.mark.parametrize("each", [[2], [2, 2, 2]])
def test_prompts_and_their_numbers_of_tokens_have_to_be_as_many(engine, each):
    with pytest.raises(ValueError, match="argument 2 is"):
        InstantScheduler(engine).run([[1, 2], [3, 4]], 2, each)


def test_only_steps_in_which_every_stream_decodes_count_as_decode_steps(engine):
    record = InstantScheduler(engine).run([[1, 2], [3, 4], [5, 6]], 2, 5)
    assert len(record.decode_s) == 4  # the third sequence decodes alone


def test_cached_prompts_are_not_computed(engine):
    engine._cache[:] = torch.zeros_like(engine._cache)
    with pytest.raises(RuntimeError):  # the fake model notices keys that nobody wrote
        InstantScheduler(engine).run([[1] * 40], 1, 2, cached=True)


def test_the_engine_is_the_workers_with_every_page_written(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "set_num_interop_threads", lambda number: None)  # once per process
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    searched = []
    monkeypatch.setattr(worker.start, "load", searched.extend)  # and no kernels: none is compiled
    write_tiny_llama(tmp_path)
    engine = ready_engine(str(tmp_path), torch.get_num_threads())
    assert searched[0] == tmp_path / "cache" / "millrace" / "kernels"
    assert engine.blocks == KV_TOKENS // 16 + 1
    assert all(layer.isfinite().all() and layer.std() > 0.9 for layer in engine.cache.layers)
    assert InstantScheduler(engine).run([[1, 2], [3]], 2, 3).tokens == 6
