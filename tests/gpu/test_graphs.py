"""On a GPU: what was recorded computes what is computed without, in every size and any company."""

import pytest
import torch

from tests.gpu.engines import ahead, make_engine, take_few_rows, tiny_model

SIZES = (1, 2, 4, 8, 16)
NEAR = {torch.float32: 1e-4, torch.bfloat16: 2e-2}


@pytest.fixture(scope="module", params=list(NEAR), ids=str)
def model(request, tmp_path_factory):
    """In 16 bits, with linear layers of few rows in the kernel, whatever is faster."""
    made = tiny_model(tmp_path_factory.mktemp("model"), dtype=request.param)
    take_few_rows(made, True)
    return made


@pytest.mark.parametrize("rows", [1, 2, 3, 8, 13])
def test_a_replay_gives_the_hidden_rows_of_a_run(model, rows):
    engine = make_engine(model, ahead(SIZES), prepared=False)
    runner = engine._runner
    steps = runner._steps
    state, decode = steps.state, steps._decode
    for layer in engine.cache.layers:
        layer.normal_()
    lengths = [17 + 13 * row for row in range(rows)]
    with torch.inference_mode():
        for row, length in enumerate(lengths):
            state.enter(row + 1, 5 + row, length, 1)
            state.set_blocks(row + 1, 0, range(1 + 16 * row, 17 + 16 * row))
        slots = list(range(1, rows + 1))
        state.set_rows(slots, rows)
        steps.update(state.pending())
        expected = decode(rows, tuple(lengths)).clone()
        runner.prepare()
        size = decode.size_for(rows)
        assert size in SIZES
        state.set_rows(slots, size)
        steps.update(state.pending())
        for _ in range(2):
            got = decode(size, tuple(lengths))[:rows].clone()
            distance = (got - expected).norm() / expected.norm()
            assert distance < NEAR[got.dtype]


def test_all_sizes_share_their_memory(model):
    torch.cuda.empty_cache()
    one, all_of_them = (_memory_of(model, sizes) for sizes in ((16,), SIZES))
    assert all_of_them < 2 * one + (64 << 20)


def _memory_of(model, sizes) -> int:
    engine = make_engine(model, ahead(sizes), prepared=False)
    before, _ = torch.cuda.mem_get_info()
    engine.prepare()
    after, _ = torch.cuda.mem_get_info()
    return before - after
