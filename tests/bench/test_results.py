import pytest

from bench.peers import report
from bench.peers.results import Results


def side(**values):
    return {key: {"value": value, "figures": {}} for key, value in values.items()}


@pytest.fixture
def results(tmp_path):
    found = Results(tmp_path / "kept" / "135m.json", "135m", "abc")
    found.contenders = {
        "ours": {"how": "Millrace", "version": "", "start_s": 5.0},
        "slow": {"how": "another", "version": "1.2", "start_s": 9.0},
    }
    found.rounds = {
        "slow": [
            {"ours": side(streams_1=100.0), "slow": side(streams_1=50.0)},
            {"ours": side(streams_1=10.0), "slow": side(streams_1=4.0)},  # a slow moment, for both
            {"ours": side(streams_1=90.0), "slow": side(streams_1=60.0, prefix_warm=None)},
        ]
    }
    return found


def test_ratios_are_of_sides_in_the_same_round(results):
    assert results.ratio("slow", "streams_1") == 2.0
    assert results.value("slow", "slow", "streams_1") == 50.0
    assert results.ours("streams_1") == 90.0


def test_figures_that_a_peer_does_not_give_are_not_invented(results):
    assert results.ratio("slow", "prefix_warm") is None
    assert "| first token, prefix seen before, ms | – | – |" in report.table(results)


def test_the_table_has_ratios_versions_and_who_is_missing(results):
    results.troubles["absent"] = "not installed"
    table = report.table(results)
    assert "| 1 stream, tok/s | 90 | 50 (2.00) |" in table
    assert "- slow: another (1.2), ready after 9.0 s, 3 rounds" in table
    assert "- absent: no figures: not installed" in table


def test_a_later_call_continues_what_was_written(results):
    results.machine = {"cores": 2}
    results.write()
    again = Results.read(results.path, "135m", "def")
    assert vars(again) == vars(results)
    assert Results.read(results.path.with_name("other.json"), "135m", "def").rounds == {}


def test_attention_is_what_the_longer_context_adds(results):
    assert results.attention() is None
    results.machine = {"read_gb_s": {"1": 10.0, "2": 20.0}}
    results.steps = {
        "step_ms": {"1": {"64": 1.0, "2000": 2.0}, "32": {"64": 10.0, "2000": 110.0}},
        "kv_bytes_per_token": 10_000,
        "dtype": "bfloat16",
    }
    found = results.attention()
    assert found["attention_ms"] == 100.0
    assert found["read_ms"] == pytest.approx(32 * 1936 * 10_000 / 20e9 * 1e3)
