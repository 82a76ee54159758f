"""Results for people: a table per run, and the charts of all runs."""

from collections.abc import Sequence
from typing import Any

from launcher.bench.figures import METRICS, PERCENTILES, samples
from launcher.bench.generator import Closed
from launcher.bench.plot import Chart, Line, distribution, picture
from launcher.bench.session import Result

LATE_MS = 50.0
"""Requests of an open loop that begin later than this make its rate a wish."""
_SHOWN_FAILURES = 5


def table(result: Result) -> str:
    """The figures of one run, in some lines."""
    found = result.fields
    lines = [
        f"{result.title}: {found['num_prompts']} requests in {found['duration']:.1f} s, "
        f"{found['failed']} failed"
    ]
    if found["completed"]:
        lines += _figures(found)
    for text, count in list(found["failures"].items())[:_SHOWN_FAILURES]:
        lines.append(f"  FAILED {count} time{'s' if count > 1 else ''}: {text}")
    return "\n".join([*lines, *(f"  note: {note}" for note in notes(result))])


def _figures(found: dict[str, Any]) -> list[str]:
    statistics = ("mean", "median", *(f"p{percent}" for percent in PERCENTILES))
    lines = [
        f"  requests/s {found['request_throughput']:.2f}, "
        f"tokens/s out {found['output_throughput']:.1f}, "
        f"in and out {found['total_token_throughput']:.1f} "
        f"({found['total_input_tokens']} in, {found['total_output_tokens']} out)",
        f"  {'milliseconds':<24}" + "".join(f"{name:>11}" for name in statistics),
    ]
    for name, meaning in METRICS.items():
        cells = "".join(f"{found[f'{statistic}_{name}_ms']:>11.1f}" for statistic in statistics)
        lines.append(f"  {meaning:<24}{cells}")
    return lines


def notes(result: Result) -> list[str]:
    """What makes these figures mean less than they seem to."""
    found = []
    if result.fields["max_start_delay_ms"] > LATE_MS:
        found.append(
            f"a request began {result.fields['max_start_delay_ms']:.0f} ms late: this machine is "
            "too busy to keep up the rate"
        )
    if result.fields["output_tokens_counted_as_events"]:
        found.append("the server does not count its tokens: each event counts as one")
    return found


def charts(title: str, results: Sequence[Result]) -> str:
    """The picture: distributions of a single run, percentiles over the load of several."""
    if len(results) == 1:
        values = samples(results[0].run.outcomes)
        found = [
            Chart(
                meaning,
                "ms",
                "% of requests at most" if name != "itl" else "% of gaps at most",
                (distribution(name.upper(), values[name]),) if values[name] else (),
            )
            for name, meaning in METRICS.items()
        ]
        return picture(f"{title}: {results[0].title}", found)
    throughput = Chart("throughput", _x_label(results), "tokens/s out", _lines(
        results, ("output_throughput",)))  # fmt: skip
    found = [throughput] + [
        Chart(METRICS[name], _x_label(results), "ms", _lines(
            results, (f"median_{name}_ms", f"p99_{name}_ms")))
        for name in ("ttft", "itl", "e2el")
    ]  # fmt: skip
    return picture(title, found)


def _x_label(results: Sequence[Result]) -> str:
    closed = all(isinstance(result.load, Closed) for result in results)
    return "requests at once" if closed else "requests per second"


def _lines(results: Sequence[Result], fields: tuple[str, ...]) -> tuple[Line, ...]:
    """Per scenario and field. With rates among the loads, a closed loop stands at what it did."""
    closed = all(isinstance(result.load, Closed) for result in results)
    scenarios = dict.fromkeys(result.scenario.name for result in results)
    lines = []
    for scenario in scenarios:
        for field in fields:
            points = [
                (
                    float(result.load.concurrency)
                    if closed and isinstance(result.load, Closed)
                    else result.fields["request_throughput"],
                    result.fields[field],
                )
                for result in results
                if result.scenario.name == scenario
            ]
            name = field.split("_")[0] if len(fields) > 1 else ""
            parts = [scenario] * (len(scenarios) > 1) + [name] * bool(name)
            lines.append(Line(" ".join(parts), tuple(sorted(points))))
    return tuple(lines)
