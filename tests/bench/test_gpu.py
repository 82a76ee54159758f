"""``bench.gpu`` without a GPU: its arithmetic, its checkpoint, its tables, its one sentence."""

import json
import os
import runpy
import sys
from subprocess import CalledProcessError
from types import SimpleNamespace

import pytest
import torch

from bench.gpu import __main__ as gpu_main
from bench.gpu import all as gpu_all
from bench.gpu import checkpoint, kernels
from bench.gpu.__main__ import NO_GPU, main
from bench.gpu.engine import Measuring, in_order, ready_engine
from bench.gpu.pieces import Budget, Result, file_of
from bench.gpu.profile import Event, by_group, group_of, idle_share, table
from bench.gpu.report import text_of
from bench.gpu.shapes import SHAPES
from tests.worker.driver import CPU
from worker.loading import load_model


def test_without_a_gpu_there_is_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["bench.gpu"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main() == 1
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", NO_GPU + "\n")


def test_the_arithmetic_of_the_eight_billion():
    shape = SHAPES["8b"]
    assert shape.kv_bytes == 131_072
    assert shape.matrix_weights(1) == shape.matrix_weights(64) == 7_504_658_432
    floor_s = shape.decode_floor_s(32, 512, 4.8e12)
    assert floor_s == pytest.approx((2 * 7_504_658_432 + 32 * 512 * 131_072) / 4.8e12)
    matrices, attention = shape.prefill_operations(512, 2)
    assert matrices == pytest.approx(2 * 2 * (512 * 32 * 218_103_808 + 4096 * 128_256))
    # two products of [512, 128] with [128, 512], half of them masked, per head and layer
    assert attention == pytest.approx(2 * 2 * 2 * 32 * 32 * 128 * 512 * 513 / 2)


def test_the_arithmetic_of_a_mixture():
    shape = SHAPES["moe"]
    attention, expert, output = 2 * 2048 * 36 * 128, 3 * 2048 * 768, 2048 * 151_936
    router = 2048 * 128
    assert shape.blocks_read(1) == pytest.approx(8)
    assert shape.blocks_read(2) == pytest.approx(8 + 8 - 8 * 8 / 128)
    assert 127 < shape.blocks_read(256) < 128
    assert shape.matrix_weights(1) == pytest.approx(12 * (attention + router + 8 * expert) + output)
    matrices, _ = shape.prefill_operations(512, 1)
    each = 12 * (attention + router + 8 * expert)
    assert matrices == pytest.approx(2 * (512 * each + output))


def test_idle_is_when_nothing_runs_and_overlap_counts_once():
    events = [Event("a", 0, 4), Event("b", 2, 6), Event("c", 8, 9), Event("d", 9, 10)]
    assert idle_share(events) == pytest.approx(0.2)
    assert idle_share(events[::-1]) == pytest.approx(0.2)
    assert idle_share([]) == 0.0


def test_what_waits_for_another_is_charged_for_what_comes_after_it():
    events = [Event("late", 1, 7), Event("first", 0, 4), Event("within", 2, 3)]
    assert {row["name"]: row["ms"] for row in table(events, 1)} == {
        "first": 0.004, "late": 0.003, "within": 0.0,
    }  # fmt: skip


def test_kernels_are_added_up_by_name_and_group():
    events = [Event("nvjet_tst_64x8", 0, 2000), Event("_attend_decoding", 2000, 3000)]
    events += [Event("nvjet_tst_64x8", 3000, 5000)]
    rows = table(events, 2)
    assert [(row["name"], row["launches"], row["ms"]) for row in rows] == [
        ("nvjet_tst_64x8", 1.0, 2.0),
        ("_attend_decoding", 0.5, 0.5),
    ]
    assert by_group(rows) == {"matrices": 2.0, "attention": 0.5}
    assert group_of("void gemvNSP_kernel<bf16>") == "matrices"
    assert group_of("triton_red_fused") == "other"


def test_a_device_has_a_file_of_its_own_each_day():
    device = {"device": "NVIDIA H200 (141 GB)"}
    found = {"engine": device, "shape": "8b", "date": "2026-11-28"}
    assert file_of(found) == "nvidia-h200-141-gb-2026-11-28.json"
    without = file_of(found | {"graphs": False})
    assert without == "nvidia-h200-141-gb-no-graphs-2026-11-28.json"
    assert file_of(found | {"shape": "moe"}) == "nvidia-h200-141-gb-moe-2026-11-28.json"


@pytest.fixture(scope="module", params=["tiny", "tiny-moe"])
def shape(request):
    return request.param


@pytest.fixture(scope="module")
def directory(shape, tmp_path_factory):
    place = tmp_path_factory.mktemp("random")
    checkpoint.write(place, shape)
    return place


def test_the_checkpoint_is_one_that_loads(directory):
    model = load_model(str(directory), device=CPU, dtype=torch.float32)
    weight = model.decoder.tokens.weight
    assert weight.shape == (512, 64)
    assert 0.01 < weight.float().std() < 0.03
    assert len(set(weight.flatten().tolist())) > 1000


class FakeWindow:
    """The profiler itself takes ten seconds to start; ``--device cpu`` runs it."""

    def __init__(self, engine, first, last):
        self._engine = engine
        self._steps = 0
        self.window = first, last

    def __getattr__(self, name):
        return getattr(self._engine, name)

    def step(self):
        self._steps += 1
        return self._engine.step()

    def events(self):
        assert self._steps >= self.window[1]
        return [Event("nvjet", 0, 10), Event("_attend", 20, 30)]


def test_everything_about_the_engine_is_measured_and_shown(shape, directory, monkeypatch, tmp_path):
    monkeypatch.setattr("bench.gpu.engine.Window", FakeWindow)
    for name, value in {"PROMPT_TOKENS": 20, "NEW_TOKENS": 6, "READ_TOKENS": 30}.items():
        monkeypatch.setattr(f"bench.gpu.engine.{name}", value)
    measuring = Measuring(ready_engine(str(directory), "cpu", 2), SHAPES[shape], 1e10, 1e11)
    found = {"shape": "8b", "prompt_tokens": 20, "new_tokens": 6, "date": "2026-11-28"}
    result = Result(tmp_path, found)
    result.add({"engine": {"device": "cpu", "torch": "2", "copy_gb_s": 10.0}})
    result.add({"engine": {"matrix_tflop_s": 0.1, "dtype": "float32"}})
    for piece in in_order(measuring.measurements([2]), Budget(1e9)):
        result.add({"engine": piece})
    engine = json.loads((tmp_path / "cpu-2026-11-28.json").read_text())["engine"]
    assert engine["streams"]["2"]["step_over_floor"] > 0
    assert engine["decode_profiles"]["2"]["ms_by_group"]["matrices"] > 0
    assert engine["reading_profile"]["idle_share"] == pytest.approx(1 / 3, abs=1e-4)
    assert engine["reading_profile"]["kernels"]
    served = {"tok_s": 1.0, "ttft_ms_p50": 2.0, "itl_ms_p50": 3.0}
    result.add({"http": {"streams": {"2": served}, "first_token_ms": 4.0}})
    shown = text_of(result.found)
    assert "| 2 | 1.0 |" in shown
    assert "one decode step of 2 streams" in shown
    assert set(engine["attention_ms"]) == set(kernels.steps())
    assert all(each["reference"] > 0 for each in engine["attention_ms"].values())
    assert "| attention of one layer, µs | floor | reference |" in shown


def test_steps_of_kernels_write_where_their_tables_say():
    for step in kernels.steps(64).values():
        inputs, blocks = kernels.inputs_of(step, CPU)
        assert (
            len(set(inputs.slots.tolist())) == len(inputs.slots) == sum(inputs.query_lengths_host)
        )
        used = [
            inputs.block_tables[row, : -(-length // 16)].tolist()
            for row, length in enumerate(step.lengths)
        ]
        flat = [block for row in used for block in row]
        assert sorted(flat) == list(range(1, blocks))
        owner = {block: row for row, owned in enumerate(used) for block in owned}
        rows = [row for row in range(len(used)) for _ in range(step.computed)]
        assert [owner[slot // 16] for slot in inputs.slots.tolist()] == rows
        assert (inputs.slots % 16 == inputs.positions % 16).all()


def test_the_fastest_of_kernels_is_shown_so():
    taken = {"a step": {"floor": 0.001, "triton": 0.002, "torch": 0.003}, "other": {"torch": 1.5}}
    found = {"shape": "8b", "prompt_tokens": 1, "new_tokens": 2, "date": "today"}
    engine = {"device": "GPU", "torch": "2", "copy_gb_s": 1.0, "matrix_tflop_s": 2.0}
    engine |= {"attention_ms": taken, "attention_missing": {"flashinfer": "it is not installed"}}
    shown = text_of(found | {"engine": engine}).splitlines()
    assert "| a step | 1.0 | **2.0** | 3.0 |" in shown
    assert "| other | – | – | **1,500.0** |" in shown
    assert "no attention by flashinfer: it is not installed" in shown


def test_what_there_is_no_time_for_is_named(tmp_path):
    ticks = iter([0.0, 1.0, 5.0, 11.0, 12.0])
    budget = Budget(10.0, lambda: next(ticks))
    measurements = {name: (lambda name=name: {"seen": [name]}) for name in "abcd"}
    result = Result(tmp_path, {"shape": "8b", "prompt_tokens": 1, "new_tokens": 2, "date": "today"})
    result.add({"engine": {"torch": "2"}})
    assert result.path is None  # no device, no name
    ceilings = {"copy_gb_s": 1.0, "matrix_tflop_s": 2.0}
    result.add({"engine": {"device": "GPU", **ceilings, "streams": {"1": {"tok_s": 9.0}}}})
    for piece in in_order(measurements, budget):
        result.add({"engine": piece})
    assert result.found["engine"]["seen"] == ["a", "b"]
    shown = text_of(result.found)
    assert "left out of engine: c, d" in shown
    assert "| 1 | – | 9.0 | – |" in shown
    assert [path.name for path in tmp_path.iterdir()] == ["gpu-today.json"]


class IdleServer:
    """Stands where the server would be started."""

    start_s = 1.0

    def __init__(self, *given):
        self.target = SimpleNamespace(url="")

    def __enter__(self):
        return self

    def __exit__(self, *problem):
        pass


def test_the_server_is_measured_when_the_engine_alone_has_failed(tmp_path, monkeypatch, capsys):
    def failing(*given):
        yield {"device": "GPU", "torch": "2", "copy_gb_s": 1.0, "matrix_tflop_s": 2.0}
        raise CalledProcessError(-11, ["engine"])

    monkeypatch.setattr(gpu_main, "bare_engine", failing)
    monkeypatch.setattr(gpu_main, "server_of", IdleServer)
    monkeypatch.setattr(gpu_main, "over_http", lambda *given: [{"first_token_ms": 4.0}])
    monkeypatch.setattr(
        "sys.argv", ["bench.gpu", "--device", "cpu", "--results", str(tmp_path / "found")]
    )
    assert main() == 1
    (path,) = (tmp_path / "found").iterdir()
    found = json.loads(path.read_text())
    assert found["http"]["first_token_ms"] == 4.0
    said = capsys.readouterr()
    assert "the engine alone ended early" in said.err
    assert "left out of engine: what came after its process had failed" in said.out


def test_what_libraries_print_is_no_piece_of_the_result(tmp_path, monkeypatch, capsys):
    """NCCL says its version on standard output, whoever else writes there."""
    said = """print("NCCL version 2.27"); print('{"start_s": 1.5}')"""
    run = gpu_main.subprocess.Popen
    monkeypatch.setattr(
        gpu_main.subprocess,
        "Popen",
        lambda command, **given: run([sys.executable, "-c", said], **given),
    )
    options = SimpleNamespace(shape="tiny", device="cpu", streams=[1], no_graphs=False)
    assert list(gpu_main.bare_engine(options, tmp_path, Budget(60))) == [{"start_s": 1.5}]
    assert capsys.readouterr().err == "NCCL version 2.27\n"


def test_kernels_are_compiled_where_there_is_a_gpu(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")  # as tests/conftest.py has it for all others
    runpy.run_path(str(gpu_all.ROOT / "tests" / "gpu" / "conftest.py"))
    assert os.environ["TRITON_INTERPRET"] == "0"


def test_both_in_one_command_run_all_tests_that_there_are():
    files = [word for word in gpu_all.tests_command() if word.startswith("tests/gpu/")]
    assert sorted(files) == sorted(
        str(path.relative_to(gpu_all.ROOT)) for path in gpu_all.ROOT.glob("tests/gpu/test_*.py")
    )


@pytest.mark.parametrize("deaf", [False, True])
def test_what_does_not_end_in_time_is_stopped_and_its_log_stays(tmp_path, monkeypatch, deaf):
    monkeypatch.setattr(gpu_all, "GRACE_S", 0.1 if deaf else 60.0)
    ignoring = "signal.signal(signal.SIGINT, signal.SIG_IGN);" if deaf else ""
    code = f"import signal; {ignoring} signal.pause()"
    status = gpu_all.run([sys.executable, "-c", code], tmp_path / "log", 0.1)
    assert status == gpu_all.TOO_LATE
    assert (tmp_path / "log").read_text().startswith(f"$ {sys.executable} -c")
    done = gpu_all.run([sys.executable, "-c", "print('ok'); exit(3)"], tmp_path / "log", 60.0)
    assert done == 3
    assert (tmp_path / "log").read_text().endswith("ok\n")
