"""Nobody waits for the device on the way from one decoding step to the next."""

import pytest
import torch

from common.messages import BLOCK_TOKENS
from common.sampling import SamplingParameters
from tests.worker.ahead.waiting import CountedTransfers, Counting
from tests.worker.driver import CPU, RUNNERS, Driver
from tests.worker.texts import SAMPLED
from tests.worker.tiny import write_tiny_llama
from worker.cache import KVCache
from worker.loading import load_model
from worker.runner import HostRunner

PROMPT = [3, 1, 4, 1, 5, 9, 2, 6]
PLAIN = [
    SamplingParameters(),
    SamplingParameters(do_sample=True, seed=5, temperature=0.7, top_k=9, top_p=0.8, typical_p=0.9),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    directory = tmp_path_factory.mktemp("model")
    write_tiny_llama(directory, num_hidden_layers=1)
    return load_model(str(directory), device=CPU, dtype=torch.float32)


class Counted:
    """A driver whose launches and readings are counted apart."""

    def __init__(self, model, monkeypatch, runner: str) -> None:
        self.transfers = CountedTransfers()
        monkeypatch.setattr("worker.engine.transfers_of", lambda device: self.transfers)
        cache = KVCache(model.configuration, 64, CPU, torch.float32)
        self.driver = Driver(model, cache, runner=runner)
        self.launching, self.reading = Counting(), Counting()
        runner_ = self.driver.engine._runner
        launch = runner_.launch
        # What attention does is its kernel's own, and has its own tests.
        attend = model.decoder._attention.begin
        monkeypatch.setattr(
            model.decoder._attention, "begin", lambda *given: _aside(self.launching, attend, given)
        )

        self.sent: list[int] = []
        """Transfers of each launch."""

        def counted(flight, masks):
            before = self.transfers.uploads
            with self.launching:
                launched = launch(flight, masks)
            self.sent.append(self.transfers.uploads - before)
            return launched

        monkeypatch.setattr(runner_, "launch", counted)

    def steps(self, count: int) -> None:
        for _ in range(count):
            assert self.driver.step()


def _aside(counting, act, given):
    """The reference attention plans on the host; GPUs have kernels that do not."""
    found = counting.found.copy()
    result = act(*given)
    counting.found.clear()
    counting.found.update(found)
    return result


@pytest.mark.parametrize("sampling", [*PLAIN, *SAMPLED])
@pytest.mark.parametrize("runner", ["ahead", "recorded"])
def test_launching_waits_for_nothing(model, monkeypatch, runner, sampling):
    counted = Counted(model, monkeypatch, runner)
    driver = counted.driver
    driver.dispatch(
        add=[
            driver.new(0, PROMPT, 30, sampling=sampling),
            driver.new(1, PROMPT[1:], 30, prefill_logprobs=True),
        ]
    )
    counted.steps(4)
    driver.dispatch(add=[driver.new(2, PROMPT * 3, 30, sampling=sampling)])
    counted.steps(4)
    driver.release(0)
    counted.steps(4)
    assert counted.launching.found == {}
    assert counted.transfers.waits == 13  # each step is waited for once, and prompts' scores


def test_a_host_that_looks_is_seen(model, monkeypatch):
    monkeypatch.setitem(RUNNERS, "host", {"make_runner": HostRunner})
    counted = Counted(model, monkeypatch, "host")
    counted.driver.add(0, PROMPT, 30, sampling=PLAIN[1])
    counted.steps(3)
    assert counted.launching.found["tolist"] == 3  # ids and log-probabilities, together
    assert counted.launching.found["nonzero"] >= 3


def test_a_steady_step_sends_nothing_until_a_block_is_leased(model, monkeypatch):
    counted = Counted(model, monkeypatch, "recorded")
    driver = counted.driver
    for number in range(3):
        driver.add(number, PROMPT, 60, room=len(PROMPT) + 30)
    counted.steps(3)
    before = counted.transfers.uploads
    counted.steps(6)
    assert counted.transfers.uploads == before
    for number in range(3):
        driver.grant(number, 2 * BLOCK_TOKENS)
    counted.steps(5)
    assert counted.transfers.uploads == before + 1
    driver.run()
    whole = [driver.records[number].ids for number in range(3)]
    assert all(ids == whole[0] for ids in whole)
    assert [len(ids) for ids in whole] == [60] * 3


@pytest.mark.parametrize("sampling", [None, *SAMPLED])
def test_a_step_sends_one_packet_at_most(model, monkeypatch, sampling):
    """Whoever comes, goes, or is scored: prompts, parameters, counts and tables travel together."""
    counted = Counted(model, monkeypatch, "recorded")
    driver = counted.driver
    driver.step_tokens = 12

    def new(number, prompt, **options):
        asked = sampling or SamplingParameters()
        return driver.new(number, prompt, 40, sampling=asked, **options)

    before = counted.transfers.uploads
    driver.dispatch(add=[new(0, PROMPT)])
    counted.steps(3)
    driver.dispatch(add=[new(1, PROMPT * 8, prefill_logprobs=True), driver.new(2, PROMPT, 5)])
    counted.steps(13)
    driver.dispatch(release=[0], add=[new(3, PROMPT[2:])])
    driver.run()
    assert not any(record.error for record in driver.records.values())
    assert set(counted.sent) == {0, 1}
    assert counted.transfers.uploads - before == sum(counted.sent)
