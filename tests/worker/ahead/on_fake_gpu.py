"""An engine on a fake GPU as a worker starts it there, and what its launches wait for."""

import itertools
from collections import Counter
from functools import partial

import torch

from common.sampling import SamplingParameters
from tests.worker.ahead.fake_gpu import GPU, Copies, FakeTransfers
from tests.worker.ahead.waiting import Counting
from tests.worker.driver import RUNNERS, Driver
from worker.ahead.runner import AheadRunner
from worker.engine import Engine
from worker.kernels.select import Choices, select_gather, select_sampling
from worker.loading import load_model
from worker.warmup import Worst, warm_up

PROMPT = [3, 1, 4, 1, 5, 9, 2, 6]
SIZES = (1, 2, 4)
BLOCKS = 128
LONGEST = 200


class OnGPU:
    """A driver that is ready: all that may be compiled has been, if it is ``warm``."""

    def __init__(
        self, directory, monkeypatch, forms, *, warm=True, sizes=SIZES, rows=40, others=None,
        guidance=None, choices=None, beside=None, adapters=(), speculation=None, **options,
    ) -> None:  # fmt: skip
        """``forms`` are those of ``fake_gpu``, ``rows`` sequences may run together.

        ``choices`` of the model's kernels, and of those beside it unless there are others;
        ``others`` as ``AheadRunner`` takes them; ``options`` are ``load_model``'s.
        """
        choices = choices or Choices()
        beside = beside or choices
        model = load_model(
            str(directory), device=GPU, dtype=torch.bfloat16, choices=choices, adapters=adapters,
            **options,
        )  # fmt: skip
        self.transfers = FakeTransfers()
        monkeypatch.setattr("worker.engine.transfers_of", lambda device: self.transfers)
        self.sizes = tuple(sizes) if model.capturable else ()
        self.kinds = (False, True) if adapters else (False,)
        make = partial(AheadRunner, **steps_of(beside, rows, self.sizes))
        if others is not None:
            make = partial(make, others=others)
        sampling = select_sampling(GPU, choices=beside)
        runner = {"device": GPU, "make_runner": make, "sampling": sampling}
        monkeypatch.setitem(RUNNERS, "gpu", runner)
        digests = tuple(adapter.digest for adapter in adapters)
        worst = Worst(64, rows, LONGEST, digests[0] if digests else "")
        prepare = Engine.prepare

        def warmed(engine: Engine) -> None:
            warm_up(engine, worst)
            prepare(engine)

        if warm:
            monkeypatch.setattr(Engine, "prepare", warmed)
        self.driver = Driver(
            model, model.make_cache(model.configuration, BLOCKS, GPU), blocks=BLOCKS,
            runner="gpu", guidance=guidance, adapters=digests, speculation=speculation,
        )  # fmt: skip
        self.driver.step_tokens = 24
        self._forms, self._ready = forms, set(forms) if warm else forms
        self._counting, self._copies = Counting(), Copies()
        runner = self.driver.engine._runner
        launch = runner.launch

        def watched(flight, masks):
            if flight.turn.drafted:  # which the host has to read
                return launch(flight, masks)
            with self._counting, self._copies:
                return launch(flight, masks)

        monkeypatch.setattr(runner, "launch", watched)

    @property
    def waited(self) -> Counter[str]:
        """What launches have waited for since the worker was ready."""
        return self._counting.found + self._copies.found

    @property
    def compiled(self) -> set:
        """Forms of kernels that were launched for the first time since."""
        return self._forms - self._ready

    @property
    def recorded(self) -> list[tuple[int, bool]]:
        """Sizes of the steps that are replayed, and whether with adapters."""
        return sorted(self.driver.engine._runner._steps._decode._recorded)

    @property
    def replayed(self) -> list[tuple[int, bool]]:
        """As many as have been, as ``recorded``: the largest is recorded first."""
        recorded = sorted(self.recorded, reverse=True)
        return [recorded[number] for number in self.transfers.replayed]

    def check(self) -> None:
        """All have said what they should, and nobody was kept."""
        for record in self.driver.records.values():
            assert (record.finish, record.error) == ("length", "")
        assert not self.waited
        assert not self.compiled
        assert self.recorded == list(itertools.product(self.sizes, self.kinds))

    def generate(self, number: int, tokens: int, sampling=None, **options) -> None:
        """One more sequence, and a step: prompts of one, four or seven times as many tokens."""
        prompt = PROMPT * (1 + 3 * (number % 3))
        self.driver.add(
            number, prompt, tokens, sampling=sampling or SamplingParameters(), **options
        )
        assert self.driver.step()

    def finish(self) -> None:
        """Until all have ended; their blocks come back."""
        self.driver.run()
        for number in list(self.driver.leases):
            self.driver.release(number)

    def several(self, count: int = 6, first: int = 0, **options) -> None:
        """So many, scored and not, one more each step until more decode than are recorded."""
        for number in range(first, first + count):
            self.generate(number, 6 + number, prefill_logprobs=number % 2 == 1, **options)
        self.finish()


def steps_of(choices: Choices, rows: int, sizes) -> dict:
    """As ``Steps`` are made."""
    gather = select_gather(GPU, choices)
    return {"sequences": rows, "longest": LONGEST, "sizes": sizes, "gather": gather}
