"""Derived values, adaptation, clipping, and the combinations that stop the start."""

import json
from pathlib import Path

import pytest

from common.errors import StartupError
from launcher.arguments import parse_arguments
from launcher.limits import Context, derive, read_context
from launcher.machine import Machine
from launcher.resolve import Resolution, resolve

TWO_CORES = Machine(2)


def derived(
    flags: str = "", context: int | None = None, machine: Machine = TWO_CORES
) -> Resolution:
    resolution = resolve(parse_arguments(flags.split()).given, {})
    derive(resolution, Context(context, "its context") if context else None, machine)
    return resolution


@pytest.mark.parametrize(
    ("flags", "context", "limits"),
    [  # (max_input_tokens, max_total_tokens, max_batch_prefill_tokens, max_batch_total_tokens)
        ("", None, (1024, 2048, 4096, None)),
        ("", 8192, (1024, 2048, 4096, None)),
        ("", 512, (511, 512, 4096, None)),
        ("--max-total-tokens 512", None, (511, 512, 4096, None)),
        ("--max-total-tokens 8000", None, (1024, 8000, 4096, None)),
        ("--max-total-tokens auto", 8192, (1024, 8192, 4096, None)),
        ("--max-total-tokens auto --max-input-tokens auto", 8192, (8191, 8192, 4096, None)),
        ("--max-total-tokens auto", None, (1024, 2048, 4096, None)),
        ("--max-input-tokens auto", 512, (511, 512, 4096, None)),
        ("--max-input-tokens 4000", None, (4000, 5024, 4096, None)),
        ("--max-input-tokens 4000", 4500, (4000, 4500, 4096, None)),
        ("--max-input-tokens 4000", 2048, (2047, 2048, 4096, None)),
        ("--max-input-tokens 2047", None, (2047, 2048, 4096, None)),
        ("--max-input-tokens 2048", None, (2048, 3072, 4096, None)),
        ("--max-input-tokens 3000 --max-total-tokens 4000", 2048, (2047, 2048, 4096, None)),
        ("--max-batch-total-tokens 1000", None, (999, 1000, 1000, 1000)),
        ("--max-batch-total-tokens 100000", None, (1024, 2048, 4096, 100000)),
        ("--max-batch-prefill-tokens 64", None, (1024, 2048, 64, None)),
        ("--max-batch-prefill-tokens auto", None, (1024, 2048, 4096, None)),
        ("--max-batch-total-tokens auto", None, (1024, 2048, 4096, None)),
    ],
)
def test_token_limits(flags, context, limits) -> None:
    resolution = derived(flags, context)
    names = ("max_input_tokens", "max_total_tokens", "max_batch_prefill_tokens",
             "max_batch_total_tokens")  # fmt: skip
    assert tuple(resolution[name] for name in names) == limits


@pytest.mark.parametrize(
    ("flags", "context", "level"),
    [
        ("--max-total-tokens 2048", 8192, None),
        ("--max-input-tokens 900", 8192, None),
        ("--max-batch-total-tokens 9000", 8192, None),
        ("--max-total-tokens auto", 8192, None),
        ("", 2048, None),
        ("", 512, "info"),
        ("--max-total-tokens 4000", 512, "warning"),
        ("--max-input-tokens 700", 512, "warning"),
    ],
)
def test_clipping_is_said(flags, context, level) -> None:
    resolution = derived(flags, context)
    if level is None:
        assert resolution.notes == []
    else:
        assert level in [note.level for note in resolution.notes]
        assert "its context" in resolution.notes[0].text
        assert resolution.values["max_total_tokens"].source == "derived: clipped: its context"


def test_a_context_that_is_not_used_is_said() -> None:
    (note,) = derived("", 8192).notes
    assert note.level == "info"
    assert "2048 of the 8192 tokens" in note.text


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--max-input-tokens 9 --max-total-tokens 9", ["--max-input-tokens (9)", "smaller"]),
        ("--max-input-length 9 --max-total-tokens 8", ["--max-input-length (9)"]),
        ("--max-total-tokens 9 --max-batch-total-tokens 8", ["--max-batch-total-tokens (8)"]),
        ("--max-input-tokens 8 --max-batch-total-tokens 8", ["--max-input-tokens (8)"]),
        (
            "--max-batch-prefill-tokens 9 --max-batch-total-tokens 8",
            ["--max-batch-prefill-tokens (9)"],
        ),
        ("--port 5 --prometheus-port 5", ["--port", "--prometheus-port", "two different"]),
        ("--device cuda", ["--device", "no NVIDIA GPU"]),
        ("--tokenizer-config-path /nowhere/x.json", ["/nowhere/x.json"]),
    ],
)
def test_impossible_combinations(flags, words) -> None:
    with pytest.raises(StartupError) as caught:
        derived(flags)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_chunking_lifts_tgis_bound_on_inputs() -> None:
    assert (
        derived("--max-input-tokens 1000 --max-batch-prefill-tokens 16")["max_input_tokens"] == 1000
    )


@pytest.mark.parametrize(
    ("cores", "flags", "frontends", "threads"),
    [
        (1, "", 1, 1),
        (2, "", 1, 2),
        (2, "--num-replicas 2", 1, 1),
        (2, "--num-replicas 9", 1, 1),
        (4, "", 1, 3),
        (8, "", 2, 6),
        (16, "--num-replicas 2", 4, 6),
        (16, "--num-replicas 2 --num-shard 2", 4, 3),
        (2, "--num-shard 2", 1, 1),
        (64, "", 4, 60),
        (64, "--num-frontends 8 --worker-threads 7", 8, 7),
    ],
)
def test_processes(cores, flags, frontends, threads) -> None:
    resolution = derived(flags, machine=Machine(cores))
    assert (resolution["num_frontends"], resolution["worker_threads"]) == (frontends, threads)


EIGHT = Machine(8, cpus=tuple(range(4, 12)))


@pytest.mark.parametrize(
    ("flags", "cpus", "threads"),
    [
        ("", None, 6),
        ("--worker-cpus 4-9", [4, 5, 6, 7, 8, 9], 6),
        ("--worker-cpus 6,4,8-9 --num-replicas 2", [6, 4, 8, 9], 2),
        ("--worker-cpus 4-7 --num-replicas 2 --num-shard 2", [4, 5, 6, 7], 1),
        ("--worker-cpus 4-7 --worker-threads 4", [4, 5, 6, 7], 4),
    ],
)
def test_there_is_a_thread_for_each_processor_that_is_named(flags, cpus, threads) -> None:
    resolution = derived(flags, machine=EIGHT)
    assert (resolution["worker_cpus"], resolution["worker_threads"]) == (cpus, threads)


@pytest.mark.parametrize(
    ("flags", "machine", "words"),
    [
        ("--worker-cpus 3-5,12", EIGHT, ["not use: 3,12;", "there are 4,5,6,7,8,9,10,11"]),
        ("--worker-cpus 4-6 --num-replicas 2", EIGHT, ["3 processors for 2 workers"]),
        ("--worker-cpus 4-6 --worker-threads 2", EIGHT, ["--worker-threads (2)", "3 for each"]),
        ("--worker-cpus 4", Machine(8, ("H200",), (4,)), ["compute on a CPU"]),
    ],
)
def test_processors_that_cannot_be_shared_out_stop_the_start(flags, machine, words) -> None:
    with pytest.raises(StartupError) as caught:
        derived(flags, machine=machine)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(
    ("flags", "gpus", "shards"),
    [
        ("", 4, 1),
        ("--sharded false", 4, 1),
        ("--sharded true", 4, 4),
        ("--sharded true --num-shard 2", 4, 2),
        ("--num-shard 4", 4, 4),
        ("--num-shard 2", 0, 2),
        ("--num-shard 2 --device cpu", 1, 2),
    ],
)
def test_shards(flags, gpus, shards) -> None:
    resolution = derived(flags, machine=Machine(8, ("NVIDIA H200",) * gpus))
    assert resolution["num_shard"] == shards
    assert not resolution.notes


@pytest.mark.parametrize(
    ("flags", "gpus", "words"),
    [
        ("--sharded false --num-shard 2", 2, "contradict each other"),
        ("--sharded true --num-shard 1", 2, "contradict each other"),
        ("--sharded true", 1, "no two GPUs"),
        ("--sharded true --device cpu", 2, "no two GPUs"),
        ("--num-shard 4", 2, r"--num-shard is 4, but this machine shows 2 GPU"),
    ],
)
def test_shards_without_a_place(flags, gpus, words) -> None:
    with pytest.raises(StartupError, match=words):
        derived(flags, machine=Machine(8, ("NVIDIA H200",) * gpus))


@pytest.mark.parametrize(
    "flags",
    ["--num-shard 1025", "--num-replicas 100000", "--num-frontends 2000", "--worker-threads 0"],
)
def test_nobody_starts_thousands_of_processes_by_a_slip(flags) -> None:
    with pytest.raises(StartupError, match="must be between 1 and 1024"):
        derived(flags)
    with pytest.raises(StartupError, match="is 2048 processes"):
        derived("--num-shard 64 --num-replicas 32")


def test_more_shards_than_cores_are_warned_about() -> None:
    resolution = derived("--num-shard 4", machine=Machine(2))
    assert "fewer would be faster" in resolution.notes[-1].text


@pytest.mark.parametrize(
    ("flags", "gpus", "kind"),
    [
        ("", (), "cpu"),
        ("", ("NVIDIA H200",), "1-nvidia-h200"),
        ("--device cpu", ("NVIDIA H200",), "cpu"),
        ("--num-shard 2", ("NVIDIA H200",) * 2, "2-nvidia-h200"),
        ("--compute-type mine", ("NVIDIA H200",), "mine"),
    ],
)
def test_compute_type(flags, gpus, kind) -> None:
    assert derived(flags, machine=Machine(4, gpus))["compute_type"] == kind


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("", (None, None)),
        ("--rope-factor 2", ("linear", 2.0)),
        ("--rope-scaling dynamic", ("dynamic", 1.0)),
        ("--rope-scaling dynamic --rope-factor 4", ("dynamic", 4.0)),
    ],
)
def test_rope(flags, expected) -> None:
    resolution = derived(flags)
    assert (resolution["rope_scaling"], resolution["rope_factor"]) == expected


LONGROPE = {"original_max_position_embeddings": 400, "rope_scaling": {"type": "longrope"}}
STRETCHED = {
    "max_position_embeddings": 700,
    "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 400},
}
YARN = {**LONGROPE, "rope_scaling": {"type": "yarn"}, "max_position_embeddings": 700}


@pytest.mark.parametrize(
    ("config", "tokenizer", "flags", "tokens"),
    [
        ({"max_position_embeddings": 700}, {}, "", 700),
        ({"n_positions": 700}, {"model_max_length": 10**30}, "", 700),
        ({"max_target_positions": 700}, {}, "", 700),
        ({"max_seq_len": 700}, {"model_max_length": 600}, "", 600),
        ({"text_config": {"max_position_embeddings": 700}}, {}, "", 700),
        ({}, {"model_max_length": 600}, "", 600),
        ({}, {}, "", None),
        ({"max_position_embeddings": 700}, {"model_max_length": 700}, "--rope-factor 2", 1400),
        ({"max_position_embeddings": "many"}, [], "", None),
        ({**LONGROPE, "max_position_embeddings": 700}, {}, "", 400),
        ({**LONGROPE, "max_position_embeddings": 700}, {}, "--rope-scaling dynamic", 700),
        ({**YARN, "model_type": "phi3"}, {}, "", 400),
        ({**YARN, "model_type": "llama"}, {}, "", 700),
        (STRETCHED, {}, "", 1600),
        (STRETCHED, {"model_max_length": 1200}, "", 1200),
        (STRETCHED, {}, "--rope-scaling dynamic", 700),
        ({"text_config": {**LONGROPE, "max_position_embeddings": 700}}, {}, "", 400),
    ],
)
def test_context(tmp_path: Path, config, tokenizer, flags, tokens) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    context = read_context(tmp_path, resolve(parse_arguments(flags.split()).given, {}))
    assert (context.tokens if context else None) == tokens


def test_traces_need_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    assert derived("--otlp-endpoint http://c:4317")["otlp_endpoint"] == "http://c:4317"
    monkeypatch.setattr("launcher.limits.can_trace", lambda: False)
    with pytest.raises(StartupError, match=r"pip install '\.\[tracing\]'"):
        derived("--otlp-endpoint http://c:4317")
    assert derived()["otlp_endpoint"] is None
