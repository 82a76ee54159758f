"""A class with its own cache: who finds which, what is dropped, and what is read again."""

import pytest
import torch

from tests.worker.driver import CPU, Driver
from tests.worker.through_transformers.compare import placed, prompts
from worker.cache import KVCache
from worker.models.through_transformers.own_cache import OwnCacheModel

TOKENS = 8


@pytest.fixture(scope="module", params=["mamba", "falcon", "recurrent_gemma"])
def tiny(request):
    """A recurrent state in the cache; keys and values; a state in the modules."""
    model, texts, wanted = placed(request.param)
    assert isinstance(model, OwnCacheModel)
    return model, texts, wanted


def driver_of(model, *, step_tokens=12) -> Driver:
    cache = KVCache(model.configuration, 64, CPU, torch.float32)
    return Driver(model, cache, blocks=64, step_tokens=step_tokens)


def test_nothing_is_kept_afterwards(tiny):
    model, texts, _ = tiny
    driver = driver_of(model)
    for number, prompt in enumerate(prompts()):
        driver.add(number, prompt, TOKENS)
    driver.run()
    assert [driver.records[number].ids for number in range(3)] == texts
    assert model.held == 0


def test_preempted_and_read_again(tiny):
    model, texts, _ = tiny
    driver = driver_of(model)
    for number, prompt in enumerate(prompts()):
        driver.add(number, prompt, TOKENS)
    while len(driver.records[1].ids) < 3:
        driver.step()
    driver.release(1)
    driver.run()
    ids = driver.records[1].ids
    driver.add(1, prompts()[1], TOKENS, generated=list(ids), attempt=1)
    driver.run()
    assert driver.records[1].ids == texts[1]
    assert model.held == 0


def test_a_failed_step_is_repeated(tiny, monkeypatch):
    model, texts, _ = tiny
    driver = driver_of(model)
    for number, prompt in enumerate(prompts()):
        driver.add(number, prompt, TOKENS)
    while not driver.records[2].ids:
        driver.step()
    read, calls = OwnCacheModel._read, []

    def failing(self, held, end, first_kept):
        calls.append(end)
        if len(calls) == 2:
            raise RuntimeError("no such luck")
        return read(self, held, end, first_kept)

    monkeypatch.setattr(OwnCacheModel, "_read", failing)
    driver.run()
    assert len(calls) > 2
    assert [driver.records[number].ids for number in range(3)] == texts


def test_log_probabilities_of_prompts(tiny):
    model, texts, wanted = tiny
    driver = driver_of(model)
    for number, prompt in enumerate(prompts()):
        driver.add(number, prompt, TOKENS, prefill_logprobs=True)
    driver.run()
    for number, prompt in enumerate(prompts()):
        record = driver.records[number]
        assert record.ids == texts[number]
        following = torch.tensor(prompt[1:])
        expected = wanted[number][:-1].gather(1, following[:, None])[:, 0]
        found = torch.tensor(record.started.prefill_logprobs)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_no_prefix_is_shared(tiny):
    model, _, _ = tiny
    driver = driver_of(model)
    assert driver.engine.prefix_caching is False
    driver.add(0, prompts()[2], TOKENS, cached=16)
    driver.run()
    assert driver.records[0].error


def test_the_cache_is_measured(tiny):
    model, _, _ = tiny
    assert model.block_bytes > 0
    if "Falcon" in model.configuration.architecture:
        # Two layers of one key and one value (multi-query) of 16 numbers, for each of 16 tokens.
        assert model.block_bytes == 2 * 2 * 16 * 4 * 16
        assert model.sequence_bytes == 0
    if "Mamba" in model.configuration.architecture:
        assert model.sequence_bytes > 0
