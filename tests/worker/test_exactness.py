"""The engine over real tiny models in float32 against transformers, token for token."""

import random

import pytest
import torch
from transformers import AutoModelForCausalLM

from common.messages import BLOCK_TOKENS
from common.sampling import SamplingParameters
from tests.worker.driver import CPU, GREEDY, Driver
from tests.worker.models.families import FAMILIES
from tests.worker.texts import SAMPLED, text
from tests.worker.tiny import write_tiny, write_tiny_llama
from worker.cache import KVCache
from worker.loading import load_model

BLOCKS = 256


whoever_computes = pytest.mark.parametrize("runner", ["host", "recorded"], indirect=True)


@pytest.fixture(scope="module", params=["grouped", "tied"])
def models(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp(request.param)
    overrides = {
        "grouped": {},
        "tied": {"num_hidden_layers": 1, "num_key_value_heads": 4, "tie_word_embeddings": True},
    }[request.param]
    write_tiny_llama(directory, seed=3, **overrides)
    return both(directory)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp(request.param)
    write_tiny(directory, FAMILIES[request.param](), seed=2)
    return both(directory)


def both(directory):
    ours = load_model(str(directory), device=CPU, dtype=torch.float32)
    theirs = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    return ours, theirs


def driver_of(model, *, step_tokens=64) -> Driver:
    cache = KVCache(model.configuration, BLOCKS, CPU, torch.float32)
    for layer in cache.layers:
        layer.fill_(torch.nan)  # nobody may read what was not written
    return Driver(model, cache, blocks=BLOCKS, step_tokens=step_tokens)


def expected(theirs, prompt: list[int], ids: list[int]) -> tuple[list[int], list[float]]:
    """Of each token's place, what transformers takes there, and the token's log-probability.

    One pass over prompt and tokens: if each is what greed takes behind those before it, they are
    what greed takes.
    """
    with torch.inference_mode():
        logits = theirs(torch.tensor([prompt + ids[:-1]])).logits[0, len(prompt) - 1 :]
    logprobs = torch.log_softmax(logits, -1).gather(1, torch.tensor(ids)[:, None])
    return logits.argmax(-1).tolist(), logprobs[:, 0].tolist()


def check(driver: Driver, theirs, number: int, prompt: list[int], count: int) -> None:
    record = driver.records[number]
    tokens, logprobs = expected(theirs, prompt, record.ids)
    assert len(record.ids) == count
    assert record.ids == tokens
    assert record.logprobs == pytest.approx(logprobs, abs=1e-4)
    assert record.finish == "length"


def undisturbed(ours, prompt, count, sampling) -> list[int]:
    driver = driver_of(ours)
    driver.add(0, prompt, count, sampling=sampling)
    driver.run()
    return driver.records[0].ids


@pytest.mark.parametrize("length", [1, 15, 16, 17, 70])
@pytest.mark.parametrize("budget", [16, 1000])
def test_alone(models, length, budget):
    ours, theirs = models
    prompt = text(random.Random(length), length)
    driver = driver_of(ours, step_tokens=budget)
    driver.add(0, prompt, 20)
    driver.run()
    check(driver, theirs, 0, prompt, 20)


@pytest.mark.parametrize("budget", [16, 1000])
def test_every_family_alone(family, budget):
    ours, theirs = family
    prompt = text(random.Random(3), 70)
    driver = driver_of(ours, step_tokens=budget)
    driver.add(0, prompt, 20)
    driver.run()
    check(driver, theirs, 0, prompt, 20)
    assert len(set(driver.records[0].ids)) > 3  # else the comparison would say little


@whoever_computes
@pytest.mark.parametrize("models", ["grouped"], indirect=True)
@pytest.mark.parametrize("seed", range(4))
def test_in_a_busy_batch(runner, models, seed):
    """Other models: below."""
    busy_batch(*models, seed, 14)


def test_every_family_in_a_busy_batch(family):
    busy_batch(*family, 0, 8)


@pytest.mark.parametrize("runner", ["recorded"], indirect=True)
def test_every_family_ahead_of_the_host(family, runner):
    busy_batch(*family, 1, 4)


def busy_batch(ours, theirs, seed, sequences):
    """Arrivals, lengths, budgets, leases and releases at random; sampled company."""
    choice = random.Random(seed)
    driver = driver_of(ours)
    greedy: dict[int, tuple[list[int], int]] = {}
    sampled: dict[int, tuple[list[int], int, SamplingParameters]] = {}
    waiting = list(range(sequences))
    while waiting or driver.engine.held:
        driver.step_tokens = choice.choice([3, 9, 40, 200])
        if waiting and choice.random() < 0.4:
            number = waiting.pop(0)
            prompt, count = text(choice, choice.randrange(1, 60)), choice.randrange(1, 25)
            if number % 2:
                sampling = choice.choice(SAMPLED)
                sampled[number] = prompt, count, sampling
                driver.add(number, prompt, count, sampling=sampling, room=len(prompt))
            else:
                greedy[number] = prompt, count
                driver.add(number, prompt, count, room=choice.randrange(1, len(prompt) + 1))
        elif driver.step() is None:
            driver.dispatch()
        for number, (prompt, count, *_) in (greedy | sampled).items():
            held = len(driver.leases[number]) * BLOCK_TOKENS
            if held < len(prompt) + count and choice.random() < 0.3:
                driver.grant(number, 16)
    for number, (prompt, count) in greedy.items():
        check(driver, theirs, number, prompt, count)
    for number, (prompt, count, sampling) in sampled.items():
        assert driver.records[number].ids == undisturbed(ours, prompt, count, sampling)


@whoever_computes
def test_from_the_blocks_of_another(runner, models):
    cached_prefixes(*models)


def test_every_family_from_the_blocks_of_another(family):
    cached_prefixes(*family)


def cached_prefixes(ours, theirs):
    choice = random.Random(5)
    shared = text(choice, 48)
    driver = driver_of(ours, step_tokens=20)
    driver.add(0, [*shared, 9, 9, 9], 12)
    driver.add(1, text(choice, 30), 40)
    for _ in range(6):
        driver.step()
    for number, cached in ((2, 48), (3, 16), (4, 32)):
        prompt = shared + text(random.Random(number), number)
        blocks = driver.leases[0][: cached // 16] + driver.lease(100 - cached)
        driver.add(number, prompt, 15, blocks=blocks, cached=cached)
    # the whole prompt but its last token
    blocks = driver.leases[0][:2] + driver.lease(32)
    driver.add(5, shared[:33], 15, blocks=blocks, cached=32)
    driver.run()
    check(driver, theirs, 0, [*shared, 9, 9, 9], 12)
    for number in (2, 3, 4):
        check(driver, theirs, number, shared + text(random.Random(number), number), 15)
        assert driver.records[number].started.cached_tokens == {2: 48, 3: 16, 4: 32}[number]
    check(driver, theirs, 5, shared[:33], 15)


@whoever_computes
@pytest.mark.parametrize(
    ("models", "sampling"),
    [*(("grouped", sampling) for sampling in [GREEDY, *SAMPLED]), ("tied", GREEDY)],
    indirect=["models"],
)
def test_preempted_and_continued(runner, models, sampling):
    """Sampling sees logits, whichever model they are of."""
    ours, _ = models
    prompt, other = text(random.Random(6), 37), text(random.Random(7), 50)
    whole = undisturbed(ours, prompt, 40, sampling)
    for step_tokens in (8, 100):
        driver = driver_of(ours, step_tokens=step_tokens)
        driver.add(0, other, 60)
        driver.add(1, prompt, 40, sampling=sampling)
        for stop in (1, 7, 8, 30):
            while len(driver.records[1].ids) < stop:
                driver.step()
            driver.release(1)
            for _ in range(2):
                driver.step()
            generated = driver.records[1].ids[:]
            driver.add(1, prompt, 40, sampling=sampling, generated=generated)
        driver.run()
        assert driver.records[1].ids == whole


@whoever_computes
def test_preempted_onto_its_own_blocks(runner, models):
    """A continuation that finds its tokens, output included, in the prefix cache."""
    ours, theirs = models
    prompt = text(random.Random(8), 20)
    driver = driver_of(ours)
    driver.add(0, prompt, 40)
    while len(driver.records[0].ids) < 20:
        driver.step()
    blocks = driver.leases[0][:2] + driver.lease(40)
    generated = driver.records[0].ids[:]
    again = driver.new(0, prompt, 40, generated=generated, blocks=blocks, cached=32)
    driver.dispatch(release=[0], add=[again])
    driver.run()
    check(driver, theirs, 0, prompt, 40)


@whoever_computes
@pytest.mark.parametrize("budget", [7, 16, 300])
def test_prompt_logprobs(runner, models, budget):
    ours, theirs = models
    prompt = text(random.Random(9), 290)
    with torch.inference_mode():
        table = torch.log_softmax(theirs(torch.tensor([prompt])).logits[0], -1)
    wanted = [table[place - 1, prompt[place]].item() for place in range(1, len(prompt))]
    driver = driver_of(ours, step_tokens=budget)
    driver.add(0, text(random.Random(10), 20), 10)
    driver.add(1, prompt, 3, prefill_logprobs=True, sampling=SAMPLED[0])
    driver.run()
    started = driver.records[1].started
    assert started.prefill_logprobs == pytest.approx(wanted, abs=1e-4)


@whoever_computes
def test_stop_token(runner, models):
    ours, theirs = models
    prompt = text(random.Random(11), 12)
    driver = driver_of(ours)
    driver.add(0, prompt, 10)
    driver.run()
    check(driver, theirs, 0, prompt, 10)
    tokens = driver.records[0].ids
    driver.add(1, prompt, 10, stop_token_ids=[tokens[6]])
    driver.run()
    assert driver.records[1].finish == "eos_token"
    assert driver.records[1].ids == tokens[: tokens.index(tokens[6]) + 1]
