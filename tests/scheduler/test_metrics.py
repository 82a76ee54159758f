"""The metrics' names, labels and buckets are API: exactly these, and parsable."""

import math
import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from common.messages import Cancel, Delivered, StepTiming, Tally
from scheduler.metrics import Metrics
from scheduler.reference import declared, page
from tests.scheduler.harness import House, sequence_id, settings, started

D = [0.0001 * 1.5**k for k in range(1, 36)]
TGI_COUNTERS = {
    "tgi_request_count": set(),
    "tgi_request_success": set(),
    "tgi_request_failure": {"err"},
    "tgi_batch_inference_count": {"method"},
    "tgi_batch_inference_success": {"method"},
    "tgi_batch_inference_failure": {"method"},
    "tgi_batch_concat": {"reason"},
}
TGI_GAUGES = {
    "tgi_batch_current_size",
    "tgi_batch_current_max_tokens",
    "tgi_batch_max_total_tokens",
    "tgi_queue_size",
}
TGI_HISTOGRAMS = {
    "tgi_request_duration": "D",
    "tgi_request_validation_duration": "D",
    "tgi_request_queue_duration": "D",
    "tgi_request_inference_duration": "D",
    "tgi_request_mean_time_per_token_duration": "D",
    "tgi_request_generated_tokens": "T",
    "tgi_request_input_length": "I",
    "tgi_request_max_new_tokens": "T",
    "tgi_request_skipped_tokens": "S",
    "tgi_batch_inference_duration": "D",
    "tgi_batch_forward_duration": "D",
    "tgi_batch_decode_duration": "D",
    "tgi_batch_filter_duration": "D",
    "tgi_batch_concat_duration": "D",
    "tgi_batch_next_size": "B",
}
ALSO = {
    **{name: f"{name}_total" for name in TGI_COUNTERS},
    **{name: f"{name}_seconds" for name in TGI_HISTOGRAMS if name.endswith("_duration")},
}
"""Spellings of guides, with the same values."""
BY_METHOD = {
    name for name in TGI_HISTOGRAMS if name.startswith("tgi_batch_") and "size" not in name
}


def used() -> House:
    """A house in which everything was counted at least once."""
    house = started(max_input_tokens=1000, max_total_tokens=3000, waiting_served_ratio=0.0)
    house.submit(1)
    house.submit(2)
    house.from_frontend(Tally(4, {"overloaded": 1, 'odd "\n\\': 1}))
    house.from_frontend(Cancel(sequence_id(2), "client_gone"))
    house.from_frontend(Delivered(sequence_id(1), True, 10, 2.0, 0.1, 0.2, 1.7))
    house.report(house.token(sequence_id(1), 7, finish="length"), released=[sequence_id(2)])
    house.report(timing=StepTiming(5, 5, 0.2, 0.1, 0.1, 0.4))
    house.from_frontend_bad_frame()
    return house


def types(text: str) -> dict[str, str]:
    return dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))


def test_exactly_the_expected_names() -> None:
    found = types(used().metrics.render().decode())
    tgi = {name: kind for name, kind in found.items() if name.startswith("tgi_")}
    assert tgi == (
        dict.fromkeys(TGI_COUNTERS, "counter")
        | dict.fromkeys(TGI_GAUGES, "gauge")
        | dict.fromkeys(TGI_HISTOGRAMS, "histogram")
        | {also: "counter" if also.endswith("_total") else "histogram" for also in ALSO.values()}
        | {"tgi_request_generated_tokens_total": "counter"}
    )
    own = {name for name in found if not name.startswith("tgi_")}
    assert all(name.startswith("millrace_") for name in own)
    assert all(name.endswith("_total") for name in own if found[name] == "counter")


def test_the_text_parses_and_every_series_is_as_stated() -> None:
    text = used().metrics.render().decode()
    assert "_created" not in text
    families = {f.name: f for f in text_string_to_metric_families(text)}
    for name, labels in TGI_COUNTERS.items():
        family = families[name]
        assert family.type == "counter"
        assert family.samples
        assert all(set(sample.labels) == labels for sample in family.samples)
        assert f"\n{name}{{" in text if labels else f"\n{name} " in text
    for name in TGI_GAUGES:
        assert [s.labels for s in families[name].samples] == [{}]


@pytest.mark.parametrize(("name", "kind"), TGI_HISTOGRAMS.items())
def test_buckets(name: str, kind: str) -> None:
    text = used().metrics.render().decode()
    families = text_string_to_metric_families(text)
    (family,) = [f for f in families if f.name == name and f.type == "histogram"]
    expected = {
        "D": D,
        "I": [1000 * k / 100 for k in range(1, 101)],
        "T": [3000 * k / 100 for k in range(1, 101)],
        "S": [0, 1, 2, 3, 4, 6, 8, 12, 16],
        "B": [2**k for k in range(11)],
    }[kind]
    labels = {"method"} if name in BY_METHOD else set()
    by_method: dict[str, list[float]] = {}
    for sample in family.samples:
        if sample.name.endswith("_bucket"):
            assert set(sample.labels) == labels | {"le"}
            by_method.setdefault(sample.labels.get("method", ""), []).append(
                float(sample.labels["le"])
            )
        else:
            assert set(sample.labels) == labels
    methods = {"tgi_batch_concat_duration": {"decode"}}.get(name, {"prefill", "decode"})
    assert set(by_method) == (methods if labels else {""})
    for bounds in by_method.values():
        assert bounds[:-1] == pytest.approx(expected)
        assert bounds[-1] == math.inf


def test_guides_find_the_same_values_under_their_names() -> None:
    lines = used().metrics.render().decode().splitlines()
    series = [line for line in lines if not line.startswith("#")]
    for name, also in ALSO.items():
        suffix = r"(?=[{ ])" if also.endswith("_total") else r"(?=_(?:bucket|sum|count)[{ ])"
        ours = [line for line in series if re.match(name + suffix, line)]
        assert ours
        assert [also + line.removeprefix(name) for line in ours] == [
            line for line in series if re.match(also + suffix, line)
        ]
    assert "tgi_request_generated_tokens_total 10.0" in series


def test_the_page_is_current() -> None:
    path = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
    assert path.read_text() == page(), "run make docs"


def test_the_page_names_every_series() -> None:
    found = types(used().metrics.render().decode())
    told = {one.name: one for one in declared()}
    assert {*told, *(one.alias for one in told.values() if one.alias)} == found.keys()
    assert all(found[name] == one.kind for name, one in told.items())
    for family in used().metrics.registry.collect():
        name = family.name if family.name in told else f"{family.name}_total"
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(told[name].labels), name


def test_numbers_of_a_request() -> None:
    house = used()
    assert house.metric("tgi_request_count_total") == 4
    assert house.metric("tgi_request_success_total") == 1
    assert house.metric("tgi_request_failure_total", err="dropped") == 1
    assert house.metric("tgi_request_failure_total", err="overloaded") == 1
    assert house.metric("tgi_request_failure_total", err="other") == 1
    assert house.metric("tgi_request_duration_sum") == 2.0
    assert house.metric("tgi_request_validation_duration_sum") == 0.1
    assert house.metric("tgi_request_queue_duration_sum") == 0.2
    assert house.metric("tgi_request_inference_duration_sum") == 1.7
    assert house.metric("tgi_request_mean_time_per_token_duration_sum") == pytest.approx(0.17)
    assert house.metric("tgi_request_generated_tokens_sum") == 10
    assert house.metric("tgi_request_input_length_sum") == 40
    assert house.metric("tgi_request_max_new_tokens_sum") == 80
    assert house.metric("tgi_batch_next_size_count") == 2
    assert house.metric("tgi_batch_concat_total", reason="backpressure") == 1
    assert house.metric("tgi_batch_concat_duration_count", method="decode") == 1


def test_failures_are_not_observed() -> None:
    metrics = Metrics(settings())
    metrics.delivered(Delivered(1, success=False, generated_tokens=5, total_s=1.0))
    assert metrics.registry.get_sample_value("tgi_request_duration_count") == 0
    assert metrics.registry.get_sample_value("tgi_request_success_total") == 0


@pytest.mark.parametrize("duration", [math.nan, math.inf, -1e308, 1e300])
def test_durations_that_cannot_be_are_not_believed(duration: float) -> None:
    house = used()
    before = house.metrics.render()
    house.metrics.delivered(Delivered(1, success=True, generated_tokens=5, total_s=duration))
    after = house.metrics.render()
    changed = set(after.splitlines()) - set(before.splitlines())
    assert len(changed) == 1
    assert changed.pop().startswith(b"millrace_bad_frames_total")


def test_gauges_follow_their_owners() -> None:
    house = started(max_batch_size=1)
    house.submit(1, 20, 30)
    house.submit(2)
    assert house.metric("tgi_queue_size") == 1
    assert house.metric("tgi_batch_current_size") == 1
    assert house.metric("tgi_batch_current_max_tokens") == 50
    assert house.metric("tgi_batch_max_total_tokens") == 1600
    blocks = [
        house.metric("millrace_kv_blocks", replica="0", state=s) for s in ("used", "free", "cached")
    ]
    assert blocks == [3, 97, 0]
    house.report(house.token(sequence_id(1), 7, finish="length"))
    house.from_frontend(Cancel(sequence_id(2), "client_gone"))
    house.turn()
    house.report(released=[sequence_id(2)], timing=None)
    assert house.metric("tgi_queue_size") == 0
    assert house.metric("tgi_batch_current_size") == 0
    assert house.metric("millrace_kv_blocks", replica="0", state="cached") == 1


def test_dashboards_and_documents_name_only_what_is_there() -> None:
    """Every metric that our own dashboards query is exported."""
    root = Path(__file__).resolve().parents[2] / "deploy"
    found = types(used().metrics.render().decode())
    suffix = re.compile(r"_(bucket|sum|count)$")
    for path in [*root.glob("grafana/**/*.json"), *root.glob("prometheus/**/*.y*ml")]:
        for name in re.findall(r"\b(?:tgi|millrace)_[a-z_]+", path.read_text()):
            assert name in found or suffix.sub("", name) in found, (path.name, name)
