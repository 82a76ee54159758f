"""A launch ahead of the host that finds no memory for one tensor more, whichever that is.

The step is repeated sequence by sequence, so nothing of it may have been counted: not in the
device's state, nor in the sampler's.
"""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from common.sampling import SamplingParameters
from tests.worker.driver import Driver, HistoryModel

PROMPTS = [[3, 1, 4, 1, 5], [9, 2, 6], [5, 3, 5, 8, 9, 7, 9]]
COUNTED = SamplingParameters(
    do_sample=True, seed=7, repetition_penalty=1.5, output_frequency_penalty=0.7
)
SAMPLING = [COUNTED, SamplingParameters(), COUNTED]
LENGTHS = [9, 12, 15]
STRUCK = 4
"""The launch that fails: all sequences decode in it."""


class NoMemoryFor(TorchDispatchMode):
    """Fails where the tensor of this number is made, and counts how many are."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.left = number
        self.made = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if any(made.alias_info is None for made in function._schema.returns):
            self.made += 1
            if self.made == self.left:
                raise torch.OutOfMemoryError("no memory")
        return function(*args, **(kwargs or {}))


def generated(monkeypatch, number: int) -> tuple[list, int]:
    """All records, where the struck launch has no memory for a tensor behind its forward pass."""
    driver = Driver(HistoryModel(), HistoryModel.cache(64), runner="recorded")
    short, launches = NoMemoryFor(number), iter(range(1000))
    runner = driver.engine._runner
    launch, logits = runner.launch, driver.model.logits

    def struck(flight, masks):
        if next(launches) != STRUCK:
            return launch(flight, masks)

        def computed(hidden):
            found = logits(hidden)
            short.__enter__()
            return found

        driver.model.logits = computed
        try:
            return launch(flight, masks)
        finally:
            driver.model.logits = logits
            short.__exit__(None, None, None)

    monkeypatch.setattr(runner, "launch", struck)
    driver.dispatch(
        add=[
            driver.new(row, prompt, LENGTHS[row], sampling=SAMPLING[row])
            for row, prompt in enumerate(PROMPTS)
        ]
    )
    driver.run()
    assert driver.engine.held == 0
    return [driver.records[row] for row in range(len(PROMPTS))], short.made


@pytest.mark.usefixtures("settled")
def test_what_had_no_memory_is_repeated_as_if_it_had_not_been_launched(monkeypatch):
    wanted, made = generated(monkeypatch, 0)
    assert [len(record.ids) for record in wanted] == LENGTHS
    for number in range(1, made + 1):
        found, reached = generated(monkeypatch, number)
        assert reached >= number
        assert found == wanted, f"tensor {number} of {made}"
