"""One benchmark from beginning to end: scenario by scenario, load by load. Prints nothing."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from launcher.bench.client import Client, Target
from launcher.bench.figures import figures, load_fields
from launcher.bench.generator import Closed, Open, Run, run
from launcher.bench.meter import Meter
from launcher.bench.probe import ruler_of
from launcher.bench.protocols import Asking, Protocol
from launcher.bench.scenarios import Ruler, Scenario, draw

_WARM_UP_SEED = 1 << 20
"""Far from the seeds of the runs: a warm-up must not fill the prefix cache for them."""


@dataclass(frozen=True)
class Plan:
    """What is to be measured."""

    target: Target
    protocol: Protocol
    asking: Asking
    scenarios: tuple[Scenario, ...]
    loads: tuple[Closed | Open, ...]
    """For each scenario."""
    sweep: int = 0
    """Further open loads: this many rates, evenly up to what the first load has shown."""
    count: int = 1000
    duration_s: float = 60.0
    warmup: int = 2
    seed: int = 0


@dataclass(frozen=True)
class Result:
    """One run."""

    scenario: Scenario
    load: Closed | Open
    run: Run
    fields: dict[str, Any]

    @property
    def title(self) -> str:
        """For tables and pictures."""
        return f"{self.scenario.name}, {describe(self.load)}"


def describe(load: Closed | Open) -> str:
    """In words."""
    if isinstance(load, Closed):
        return f"{load.concurrency} at once"
    return f"{load.rate:.3g}/s"


def measure(plan: Plan, say: Callable[[str], None]) -> Iterator[Result]:
    """Every run as soon as it is over. Raises StartupError for a server that does not answer."""
    probe = Client(plan.target, plan.protocol, plan.asking)
    ruler = ruler_of(probe.send, plan.target.url)
    if ruler is None:
        say("the server does not count tokens: lengths of prompts are in words")
    for scenario in plan.scenarios:
        if plan.warmup:
            works = draw(scenario, plan.warmup, _WARM_UP_SEED + plan.seed, ruler or Ruler())
            run(Closed(plan.warmup), works, probe.send)
        yield from _scenario(plan, scenario, ruler or Ruler(), say)


def _scenario(
    plan: Plan, scenario: Scenario, ruler: Ruler, say: Callable[[str], None]
) -> Iterator[Result]:
    number = 0
    for load in plan.loads:
        result = _one(plan, scenario, load, ruler, number, say)
        number += 1
        yield result
    most = result.fields["request_throughput"]
    for step in range(1, plan.sweep + 1 if most > 0 else 1):
        load = Open(most * step / plan.sweep, plan.seed)
        yield _one(plan, scenario, load, ruler, number, say)
        number += 1


def _one(
    plan: Plan,
    scenario: Scenario,
    load: Closed | Open,
    ruler: Ruler,
    number: int,
    say: Callable[[str], None],
) -> Result:
    """The ``number``-th run of a scenario; each has prompts that no run before has sent."""
    title = f"{scenario.name}, {describe(load)}"
    works = draw(scenario, plan.count, plan.seed + 1000 * number, ruler)
    meter = Meter(title, len(works), plan.duration_s, say=say)
    client = Client(plan.target, plan.protocol, plan.asking, on_piece=meter.piece)
    try:
        done = run(load, works, client.send, duration_s=plan.duration_s, done=meter.done)
    finally:
        meter.close()
    fields = {
        "backend": plan.protocol.backend,
        "endpoint_type": plan.protocol.backend,
        "label": None,
        "model_id": plan.asking.model,
        "tokenizer_id": plan.asking.model,
        "num_prompts": len(done.outcomes),
        **load_fields(load),
        **figures(done),
        "scenario": scenario.name,
        "url": plan.target.url,
        "seed": plan.seed,
    }
    return Result(scenario, load, done, fields)
