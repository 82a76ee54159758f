"""A worker starts on a fake GPU: what it records, how many blocks it takes, what it refuses."""

import logging
from itertools import cycle

import pytest
import torch

from common.messages import Dispatch, NewSequence, SequenceSpec
from common.sampling import SamplingParameters
from common.settings import Settings
from tests.worker.adapters import write_adapter
from tests.worker.ahead.fake_gpu import FakeTransfers, fake_gpu
from tests.worker.tiny import write_tiny_llama
from worker.engine import Engine
from worker.errors import NotRecordedError
from worker.start import start

TOGETHER, LONGEST = 6, 200
ALL_BLOCKS = int(TOGETHER * 13 * 1.25) + 1
"""For which there is room: what all sequences can fill, a quarter more, and block 0."""


@pytest.fixture
def begin(tmp_path, monkeypatch):
    """Starts a worker over a tiny Llama; its GPU has so many free bytes, and steps take so many."""
    write_tiny_llama(tmp_path, num_hidden_layers=1)
    adapters = [write_adapter(tmp_path / name, tmp_path, rank=3) for name in ("a", "b")]

    def begin(free_bytes: int = 1 << 40, step_bytes: int = 0, **changes) -> Engine:
        taken = cycle([0, step_bytes])
        for name, answer in {
            "is_available": lambda: True,
            "reset_peak_memory_stats": lambda device: None,
            "memory_reserved": lambda device: next(taken),
            "max_memory_reserved": lambda device: next(taken),
            "mem_get_info": lambda device: (free_bytes, 1 << 40),
        }.items():
            monkeypatch.setattr(torch.cuda, name, answer)
        monkeypatch.setattr("worker.engine.transfers_of", lambda device: FakeTransfers())
        return start(
            Settings(
                model_id="m", model_dir=str(tmp_path), runtime_dir=str(tmp_path), device="cuda",
                dtype="bfloat16", max_batch_size=TOGETHER, max_total_tokens=LONGEST,
                max_input_tokens=150, max_batch_prefill_tokens=64, **changes,
            )
        )  # fmt: skip

    with fake_gpu(monkeypatch) as forms:
        begin.forms, begin.adapters = forms, adapters
        yield begin


def recorded(engine: Engine, *, adapted: bool = False) -> list[int]:
    """Sizes of steps, with adapters or without."""
    kinds = engine._runner._steps._decode._recorded
    return sorted(size for size, kind in kinds if kind is adapted)


@pytest.mark.parametrize(
    ("given", "sizes"), [(None, [1, 2, 4, 6]), ([4, 2], [2, 4]), ([0], []), ([], [])]
)
def test_steps_are_recorded_as_the_setting_says_and_stay_so(begin, given, sizes):
    engine = begin(cuda_graphs=given)
    assert recorded(engine) == sizes
    assert recorded(engine, adapted=True) == []
    assert engine.blocks == ALL_BLOCKS
    ready = set(begin.forms)
    together(engine)
    assert begin.forms == ready
    assert recorded(engine) == sizes


def test_a_model_that_cannot_be_recorded_is_run_and_the_log_says_why(begin, monkeypatch, caplog):
    record, made = FakeTransfers.record, []

    def fail_at_the_second(transfers, program, bounds):
        made.append(bounds)
        if len(made) > 1:
            raise NotRecordedError("its code cannot be recorded (it waits)")
        return record(transfers, program, bounds)

    monkeypatch.setattr(FakeTransfers, "record", fail_at_the_second)
    with caplog.at_level(logging.WARNING):
        engine = begin()
    assert len(made) == 2
    said = "its steps are no CUDA graphs, which is slower: its code cannot be recorded (it waits)"
    assert caplog.messages == [said]
    assert recorded(engine) == []
    assert engine.blocks == ALL_BLOCKS
    together(engine)


@pytest.mark.parametrize(("given", "sizes"), [(None, [1, 2, 4, 6]), ([], [])])
def test_of_a_worker_with_adapters_each_is_recorded_twice(begin, given, sizes):
    engine = begin(cuda_graphs=given, adapters=begin.adapters)
    ready = set(begin.forms)
    for digest in ("", begin.adapters[1].digest, ""):
        together(engine, digest)
        assert begin.forms == ready
        assert recorded(engine) == sizes
        assert recorded(engine, adapted=True) == sizes


def together(engine: Engine, adapter: str = "") -> None:
    """As many as there may be, until they have ended; every second one with the adapter."""
    add = []
    for number in range(TOGETHER):
        own = adapter if number % 2 else ""
        spec = SequenceSpec(number, [1, 2, 3], 4, SamplingParameters(), adapter=own)
        add.append(NewSequence(spec, 0, [], [1 + number]))
    engine.apply(Dispatch(1, 1, 64, add=add))
    while (result := engine.step()) is not None:
        assert not result.repeated
    assert engine.held == 0


def test_what_sampling_keeps_has_been_taken_when_the_worker_is_ready(begin):
    """Counts of tokens: they are measured with the steps, and no request makes them larger."""
    engine = begin()
    sampler = engine._runner._sampler
    kept = [counts.table for counts in (sampler._seen, sampler._output)]
    assert min(len(table) for table in kept) >= TOGETHER
    sampling = SamplingParameters(repetition_penalty=1.2, output_presence_penalty=0.3)
    specs = [SequenceSpec(number, [1, 2], 3, sampling) for number in range(TOGETHER)]
    add = [NewSequence(spec, 0, [], [1 + number]) for number, spec in enumerate(specs)]
    engine.apply(Dispatch(1, 1, 64, add=add))
    while engine.step() is not None:
        pass
    assert [sampler._seen.table is kept[0], sampler._output.table is kept[1]] == [True, True]


def test_blocks_are_what_a_step_leaves(begin):
    step_bytes, reserve_bytes, block_bytes = 100 << 20, 256 << 20, 2 * 2 * 16 * 16 * 2
    wanted = 50
    room = int(step_bytes * 1.1) + reserve_bytes + wanted * block_bytes
    assert begin(room, step_bytes).blocks == wanted


def test_with_drafts_larger_steps_are_recorded(begin):
    engine = begin(speculate=4)
    assert recorded(engine) == [1, 2, 4, 8, 16, 24, TOGETHER * 5]
    ready = set(begin.forms)
    together(engine)
    assert begin.forms == ready
