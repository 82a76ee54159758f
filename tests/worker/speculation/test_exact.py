"""With drafts as without them, token for token, in float32: whatever is drafted, whoever runs."""

import random

import pytest
import torch

from common.sampling import SamplingParameters
from tests.worker.driver import CPU
from tests.worker.models.families import FAMILIES
from tests.worker.speculation.exact import (
    SAMPLINGS,
    Order,
    alone,
    check_disturbed,
    check_same,
    driver_of,
)
from tests.worker.speculation.oracle import Oracle
from tests.worker.texts import text
from tests.worker.tiny import write_tiny, write_tiny_llama
from worker import choosing
from worker.loading import load_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    directory = tmp_path_factory.mktemp("model")
    write_tiny_llama(directory, seed=3)
    return load_model(str(directory), device=CPU, dtype=torch.float32)


@pytest.mark.usefixtures("runner")
@pytest.mark.parametrize(("tokens", "seed"), [(1, 0), (4, 1), (7, 3)])
def test_disturbed_in_a_busy_batch(model, tokens, seed):
    check_disturbed(model, tokens, seed)


@pytest.mark.parametrize("name", ["gemma2", "gpt2", "mixtral"])
def test_other_families(tmp_path, name):
    write_tiny(tmp_path, FAMILIES[name](), seed=2)
    model = load_model(str(tmp_path), device=CPU, dtype=torch.float32)
    check_disturbed(model, 3, 5, count=8)


@pytest.mark.usefixtures("runner")
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_fewer_steps(model, sampling):
    """Right drafts are all accepted, however tokens are chosen."""
    order = Order(text(random.Random(1), 30), 41, sampling)
    expected = alone(model, order)
    driver = driver_of(model, 4, Oracle([order.prompt + expected.ids]))
    driver.add(0, order.prompt, order.count, **order.options)
    assert driver.run() == 1 + 8
    check_same(driver.records[0], expected)


@pytest.mark.usefixtures("runner", "settled")
def test_memory_that_is_short_after_a_choice(model, monkeypatch):
    """What is chosen in such a step is counted once, when it is repeated."""
    penalties = SamplingParameters(repetition_penalty=1.2, output_frequency_penalty=0.3)
    order = Order(text(random.Random(4), 20), 40, penalties)
    expected = alone(model, order)
    driver = driver_of(model, 4, Oracle([order.prompt + expected.ids]))
    driver.add(0, order.prompt, order.count, **order.options)
    verify, steps = choosing.verify, iter(range(1000))

    def verify_or_fail(*arguments):
        if next(steps) % 3 == 2:
            raise MemoryError
        return verify(*arguments)

    monkeypatch.setattr(choosing, "verify", verify_or_fail)
    driver.run()
    check_same(driver.records[0], expected)
    assert next(steps) > 6
    assert driver.engine.held == 0


@pytest.mark.usefixtures("runner")
@pytest.mark.parametrize("place", range(1, 9))
def test_an_end_within_accepted_drafts(model, place):
    """By a stop token: what was computed after it is nobody's."""
    prompt = text(random.Random(2), 20)
    whole = alone(model, Order(prompt, 20, SamplingParameters()))
    stop = whole.ids[place]
    order = Order(prompt, 20, SamplingParameters(), (stop,))
    expected = alone(model, order)
    driver = driver_of(model, 5, Oracle([prompt + whole.ids]))
    driver.add(0, prompt, 20, **order.options)
    driver.run()
    check_same(driver.records[0], expected)
    assert driver.records[0].computed == len(prompt) + len(expected.ids) - 1
    assert driver.engine.held == 0


@pytest.mark.usefixtures("runner")
def test_drafts_of_its_own_text(model):
    """By n-grams: a text that repeats itself is drafted without anybody's help."""
    prompt = text(random.Random(3), 12) * 6
    order = Order(prompt, 60, SamplingParameters(repetition_penalty=0.4))
    expected = alone(model, order)
    driver = driver_of(model, 4)
    driver.add(0, prompt, 60, **order.options)
    steps = driver.run()
    check_same(driver.records[0], expected)
    assert steps < 40
