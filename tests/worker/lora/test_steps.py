"""Steps with adapters: by every runner, from cached prefixes, with drafts, in bfloat16 in C."""

import random
from dataclasses import replace

import pytest
import torch

from common.adapters import Adapter
from tests.worker.adapters import write_adapter
from tests.worker.driver import CPU, Driver
from tests.worker.paged import Paged
from tests.worker.tiny import VOCABULARY, write_tiny_llama
from worker.kernels.cpu.library import load as load_library
from worker.loading import load_model
from worker.speculation.ngrams import NgramDrafter
from worker.speculation.speculation import Speculation

BLOCKS = 64
TOKENS = 20


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A model's directory, an adapter, and the directory of the two merged."""
    home = tmp_path_factory.mktemp("models")
    write_tiny_llama(home / "base", num_hidden_layers=3)
    adapter = write_adapter(home / "a", home / "base", seed=1, merged=home / "merged")
    return home / "base", adapter, home / "merged"


def load(directory, adapters=(), dtype=torch.float32, **options):
    return load_model(str(directory), device=CPU, dtype=dtype, adapters=adapters, **options)


def driver_of(model, adapter: Adapter, **options) -> Driver:
    cache = model.make_cache(model.configuration, BLOCKS, CPU)
    return Driver(model, cache, blocks=BLOCKS, adapters=(adapter.digest,), **options)


def prompt(length, seed=0):
    return random.Random(seed).choices(range(VOCABULARY), k=length)


@pytest.mark.usefixtures("runner")
def test_every_runner_mixes_them(house) -> None:
    base, adapter, merged = house
    expected = {
        n: Paged(load(merged if n % 2 else base)).generate(prompt(9 * n + 5, n), TOKENS)
        for n in range(5)
    }
    driver = driver_of(load(base, [adapter]), adapter, step_tokens=16)
    driver.add(0, prompt(5, 0), TOKENS)
    for _ in range(6):  # base alone, then beside adapters, then alone again
        driver.step()
    for n in (1, 2, 3, 4):
        driver.add(n, prompt(9 * n + 5, n), TOKENS, adapter=adapter.digest if n % 2 else "")
    driver.run()
    assert {n: driver.records[n].ids for n in expected} == expected


def test_cached_blocks_are_its_own(house) -> None:
    """What the scheduler's keys keep apart: with the adapter's blocks it goes on as without."""
    base, adapter, merged = house
    ids = prompt(40)
    expected = Paged(load(merged)).generate(ids, TOKENS)
    driver = driver_of(load(base, [adapter]), adapter)
    driver.add(1, ids, TOKENS, adapter=adapter.digest)
    driver.add(2, ids, TOKENS)
    driver.run()
    for number, blocks, right in ((3, driver.leases[1], True), (4, driver.leases[2], False)):
        shared = blocks[:2] + driver.lease(TOKENS + 8)
        driver.add(number, ids, TOKENS, adapter=adapter.digest, blocks=shared, cached=32)
        driver.run()
        assert (driver.records[number].ids == expected) is right


def test_an_adapter_that_the_worker_lacks_ends_its_sequence_alone(house) -> None:
    base, adapter, _ = house
    driver = driver_of(load(base, [adapter]), adapter)
    driver.add(1, prompt(5), 3, adapter="another")
    driver.add(2, prompt(5), 3, adapter=adapter.digest)
    driver.run()
    assert driver.records[1].error == "the worker has no adapter of these weights"
    assert len(driver.records[2].ids) == 3


def test_drafts_are_verified_with_the_adapter(house) -> None:
    base, adapter, merged = house
    ids = prompt(8) * 4
    expected = [Paged(load(d)).generate(ids, 60) for d in (merged, base)]
    speculation = Speculation(3, NgramDrafter)
    driver = driver_of(load(base, [adapter]), adapter, speculation=speculation)
    driver.add(1, ids, 60, adapter=adapter.digest)
    driver.add(2, ids, 60)
    driver.run()
    assert [driver.records[n].ids for n in (1, 2)] == expected


@pytest.mark.parametrize("quantize", [None, "eetq"])
def test_in_bfloat16_it_is_close_to_the_reference(house, quantize, kept) -> None:
    """In C all layers are one call, gates are inside of theirs; a step with adapters opens both."""
    library = load_library([kept])
    if library is None or not library.variant.bfloat16:
        pytest.skip("no kernels in C for bfloat16 here")
    base, adapter, _ = house
    options = {"dtype": torch.bfloat16, "quantize": quantize}
    model = load(base, [adapter], library=library, **options)
    assert model.decoder._fused is not None
    ids = prompt(30)
    plain = load(base, [adapter], dtype=torch.float32, quantize=quantize)
    got, wanted = (logits(which, ids, (0,)) for which in (model, plain))
    without = logits(model, ids, ())
    assert torch.equal(without, logits(load(base, library=library, **options), ids, ()))
    assert (got - wanted).abs().max() < 0.1 * (without - wanted).abs().max()


def logits(model, ids, adapters):
    paged = Paged(model)
    inputs = paged.inputs([(paged.start(ids), len(ids))], "all")
    with torch.inference_mode():
        hidden = model.forward(replace(inputs, adapters_host=adapters), paged.cache)
        return model.logits(hidden).clone()
