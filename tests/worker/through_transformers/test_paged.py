"""A class over our paged cache: cached prefixes, log-probabilities, failed steps."""

import pytest
import torch

from tests.worker.driver import CPU, Driver
from tests.worker.through_transformers.compare import placed, prompts
from worker.cache import KVCache, LayerShape
from worker.models.through_transformers.paged import PagedModel

TOKENS = 8


@pytest.fixture(scope="module", params=["deepseek_v3", "cohere2"])
def tiny(request):
    """Keys wider than values, experts; windows by layer, scaled logits."""
    model, texts, wanted = placed(request.param)
    assert isinstance(model, PagedModel)
    return model, texts, wanted


@pytest.fixture
def driver(tiny):
    model = tiny[0]
    cache = KVCache(model.configuration, 64, CPU, torch.float32)
    for layer in cache.layers:
        layer.fill_(torch.nan)  # nobody may read what was not written
    return Driver(model, cache, blocks=64, step_tokens=12)


def test_a_cached_prefix(tiny, driver):
    _, texts, _ = tiny
    assert driver.engine.prefix_caching
    prompt = prompts()[2]
    driver.add(0, prompt, TOKENS)
    driver.run()
    blocks = driver.leases[0][:2] + driver.lease(16)
    driver.add(1, prompt, TOKENS, blocks=blocks, cached=32)
    driver.run()
    assert driver.records[1].ids == texts[2]


def test_log_probabilities_of_prompts(tiny, driver):
    _, texts, wanted = tiny
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


def test_a_failed_step_is_repeated(tiny, driver, monkeypatch):
    model, texts, _ = tiny
    rows, calls = model._adapter.rows, []

    def failing(inputs, wanted):
        calls.append(inputs)
        found = rows(inputs, wanted)
        if len(calls) == 2:
            raise RuntimeError("no such luck")
        return found

    monkeypatch.setattr(model._adapter, "rows", failing)
    for number, prompt in enumerate(prompts()):
        driver.add(number, prompt, TOKENS)
    driver.run()
    assert [driver.records[number].ids for number in range(3)] == texts


def test_a_layer_of_the_cache_for_each_call(tiny):
    configuration = tiny[0].configuration
    shape = {
        "DeepseekV3ForCausalLM": LayerShape(4, 24),  # of queries and keys: 16 + 8 rotated
        "Cohere2ForCausalLM": LayerShape(2, 16),
    }[configuration.architecture]
    assert set(configuration.kv_layers) == {shape}
