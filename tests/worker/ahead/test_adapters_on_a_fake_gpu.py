"""Steps with adapters on a fake GPU: where all decode they are replayed, beside those without."""

from functools import partial

import pytest

from tests.worker.adapters import write_adapter
from tests.worker.ahead.fake_gpu import fake_gpu
from tests.worker.ahead.on_fake_gpu import PROMPT, SIZES, OnGPU
from tests.worker.models.families import FAMILIES
from tests.worker.tiny import write_tiny, write_tiny_llama

RANKS = (4, 40)


@pytest.fixture
def home(tmp_path):
    """Writes a model and its adapters; what is loaded from there."""

    def write(family="llama"):
        model = tmp_path / "model"
        model.mkdir()
        if family == "llama":
            write_tiny_llama(model, num_hidden_layers=1)
        else:
            write_tiny(model, FAMILIES[family]())
        return model, [
            write_adapter(tmp_path / f"rank-{rank}", model, rank=rank, seed=rank) for rank in RANKS
        ]

    return write


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "gpt2", "mixtral"])
def test_beside_each_other_and_beside_none(family, home, monkeypatch):
    """In steps of odd and even numbers of their rows."""
    model, adapters = home(family)
    names = ["", *(adapter.digest for adapter in adapters)]
    with fake_gpu(monkeypatch) as forms:
        there = OnGPU(model, monkeypatch, forms, adapters=adapters)
        for number in range(5):
            there.generate(number, 6 + number, adapter=names[(number + 1) % 3])
        there.driver.run()
        there.several(3, first=5)
    there.check()


@pytest.mark.parametrize("sizes", [(1, 2, 4, 8), (3,), ()])
def test_nothing_is_compiled_for_any_number_of_rows(sizes, home, monkeypatch):
    """Of those that are recorded, and of those that are not."""
    model, adapters = home()
    with fake_gpu(monkeypatch) as forms:
        there = OnGPU(model, monkeypatch, forms, adapters=adapters, sizes=sizes, rows=8)
        for number in range(8):
            adapter = adapters[number % 2].digest if number % 3 else ""
            there.driver.add(number, PROMPT, 11, adapter=adapter)
            there.driver.step()
        there.driver.run()
    there.check()


def test_each_step_is_replayed_as_its_sequences_are(home, monkeypatch):
    """With adapters as long as somebody has one, padded as others are, without when nobody has."""
    model, adapters = home()
    with fake_gpu(monkeypatch) as forms:
        there = OnGPU(model, monkeypatch, forms, adapters=adapters)
        driver = there.driver
        add = partial(driver.new, prompt=PROMPT)
        driver.dispatch(add=[add(0, count=4), add(1, count=4)])
        driver.run()
        assert there.replayed == [(2, False)] * 3
        driver.dispatch(
            add=[
                add(2, count=5, adapter=adapters[1].digest),
                add(3, count=8),
                add(4, count=3, adapter=adapters[0].digest),
            ]
        )
        driver.run()
    assert there.replayed[3:] == [(4, True)] * 2 + [(2, True)] * 2 + [(1, False)] * 3
    there.check()


def test_a_worker_without_adapters_records_none(home, monkeypatch):
    model, _ = home()
    with fake_gpu(monkeypatch) as forms:
        there = OnGPU(model, monkeypatch, forms)
        there.several(3)
    assert there.recorded == [(size, False) for size in SIZES]
    there.check()
