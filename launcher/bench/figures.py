"""From outcomes to figures, under the names that ``vllm bench serve`` writes, so that they compare.

TTFT: until the first token. TPOT: per further token, (end - first token) / (tokens - 1), one value
per request. ITL: between events that carry tokens. E2EL: until the last token. Milliseconds, of
requests that succeeded. Percentiles are interpolated linearly.
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from launcher.bench.client import Outcome
from launcher.bench.generator import Closed, Open, Run

PERCENTILES = (90, 95, 99)
_STATUS = len("422")
METRICS = {
    "ttft": "time to first token",
    "tpot": "time per further token",
    "itl": "between tokens",
    "e2el": "whole answer",
}


def good(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Those that succeeded."""
    return [outcome for outcome in outcomes if not outcome.failure]


def samples(outcomes: Sequence[Outcome]) -> dict[str, list[float]]:
    """Per metric, every value in milliseconds."""
    answered = good(outcomes)
    return {
        "ttft": [1e3 * outcome.first_s for outcome in answered],
        "tpot": [
            1e3 * (outcome.total_s - outcome.first_s) / (outcome.output_tokens - 1)
            for outcome in answered
            if outcome.output_tokens > 1
        ],
        "itl": [1e3 * gap for outcome in answered for gap in outcome.gaps_s],
        "e2el": [1e3 * outcome.total_s for outcome in answered],
    }


def figures(run: Run) -> dict[str, Any]:
    """All figures of a run. A metric without values is 0, as in vLLM's results."""
    answered = good(run.outcomes)
    wall_s = max(run.wall_s, 1e-9)
    taken = sum(outcome.input_tokens for outcome in answered)
    given = sum(outcome.output_tokens for outcome in answered)
    found: dict[str, Any] = {
        "duration": run.wall_s,
        "completed": len(answered),
        "failed": len(run.outcomes) - len(answered),
        "total_input_tokens": taken,
        "total_output_tokens": given,
        "request_throughput": len(answered) / wall_s,
        "request_goodput": None,
        "output_throughput": given / wall_s,
        "total_token_throughput": (taken + given) / wall_s,
        "max_concurrent_requests": most_at_once(answered),
    }
    for name, values in samples(run.outcomes).items():
        found |= summary(name, values)
    return found | {
        "failures": dict(failures(run.outcomes)),
        "max_start_delay_ms": 1e3 * run.late_s,
        "output_tokens_counted_as_events": any(outcome.counted_events for outcome in answered),
    }


def summary(name: str, values: Sequence[float]) -> dict[str, float]:
    """``mean_ttft_ms``, ``median_ttft_ms``, ``std_ttft_ms``, ``p90_ttft_ms`` and so on."""
    array = np.asarray(values or [0.0])
    found = {
        f"mean_{name}_ms": float(array.mean()),
        f"median_{name}_ms": float(np.median(array)),
        f"std_{name}_ms": float(array.std()),
    }
    for percent in PERCENTILES:
        found[f"p{percent}_{name}_ms"] = float(np.percentile(array, percent))
    return found


def most_at_once(outcomes: Sequence[Outcome]) -> int:
    """The largest number of requests that ran at the same time."""
    edges = [(outcome.began_s, 1) for outcome in outcomes]
    edges += [(outcome.began_s + outcome.total_s, -1) for outcome in outcomes]
    running = most = 0
    for _, change in sorted(edges):  # at the same moment one leaves before another comes
        running += change
        most = max(most, running)
    return most


def failures(outcomes: Sequence[Outcome]) -> list[tuple[str, int]]:
    """What went wrong and how often, the most frequent first.

    Reasons that differ in numbers alone count as the first of them, but not those that differ in
    the status that they begin with.
    """
    first: dict[str, str] = {}
    found: Counter[str] = Counter()
    for text in (outcome.failure for outcome in outcomes if outcome.failure):
        kind = text[:_STATUS] + re.sub(r"\d+", "0", text[_STATUS:])
        found[first.setdefault(kind, text)] += 1
    return found.most_common()


def load_fields(load: Closed | Open) -> dict[str, Any]:
    """How the server was loaded, as vLLM's results say it."""
    if isinstance(load, Closed):
        return {"request_rate": "inf", "burstiness": 1.0, "max_concurrency": load.concurrency}
    return {"request_rate": load.rate, "burstiness": 1.0, "max_concurrency": None}


def detailed(run: Run) -> dict[str, Any]:
    """Every request's own values, in seconds, as ``--save-detailed`` of vLLM gives them."""
    return {
        "input_lens": [outcome.input_tokens for outcome in run.outcomes],
        "output_lens": [outcome.output_tokens for outcome in run.outcomes],
        "start_times": [outcome.began_s - run.began_s for outcome in run.outcomes],
        "ttfts": [outcome.first_s for outcome in run.outcomes],
        "itls": [outcome.gaps_s for outcome in run.outcomes],
        "errors": [outcome.failure for outcome in run.outcomes],
    }
