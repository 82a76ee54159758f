"""The small parts: machine, runtime directory, listener, announcement, ports, reports, progress."""

import http.server
import io
import os
import socket
import stat
import subprocess
import threading
from pathlib import Path

import msgspec
import pytest

from common.errors import StartupError
from common.settings import Settings
from launcher.announce import announcement, is_healthy, reachable, wait_until_healthy
from launcher.arguments import parse_arguments
from launcher.children import child_environment
from launcher.limits import derive
from launcher.listener import FAILURES_WITHIN_S, Watcher, events
from launcher.machine import Machine, gpu_names, usable_cores
from launcher.model import Model
from launcher.progress import Progress, human
from launcher.report import dry_run, environment_report
from launcher.resolve import Resolution, resolve
from launcher.runtime import open_runtime_directory, sweep, write_private
from launcher.start import build_settings, check_port, check_ports
from launcher.transfer import CutOffError, _passing

EXITED, BACKOFF = "PROCESS_STATE_EXITED", "PROCESS_STATE_BACKOFF"


# --- machine ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, None),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.max": "100000 100000"}, 1),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({"cpu.max": "nonsense"}, None),
    ],
)
def test_cores(tmp_path: Path, files, limit) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert usable_cores(tmp_path) == (limit or len(os.sched_getaffinity(0)))


def test_gpus(tmp_path: Path) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nprintf 'NVIDIA H200\\nNVIDIA H200\\n'\n")
    tool.chmod(0o755)
    environ = {"PATH": f"{tmp_path}:/bin:/usr/bin"}
    assert gpu_names(environ) == ("NVIDIA H200", "NVIDIA H200")
    assert gpu_names({**environ, "CUDA_VISIBLE_DEVICES": ""}) == ()
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert gpu_names(environ) == ()


# --- runtime directory ------------------------------------------------------------------------


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_a_new_runtime_directory_is_private_and_goes_away(temporary: Path) -> None:
    runtime = open_runtime_directory(None)
    assert runtime.path.parent == temporary
    assert stat.S_IMODE(runtime.path.stat().st_mode) == 0o700
    write_private(runtime.path / "x", b"secret")
    assert stat.S_IMODE((runtime.path / "x").stat().st_mode) == 0o600
    runtime.remove()
    assert not runtime.path.exists()


def test_a_given_runtime_directory_is_emptied_of_ours(tmp_path: Path) -> None:
    place = tmp_path / "r"
    runtime = open_runtime_directory(str(place))
    for name in ("settings.json", "requests", "tokens-0", "mine"):
        (place / name).touch()
    runtime.remove()
    assert [path.name for path in place.iterdir()] == ["mine"]
    os.close(runtime.lock)
    (place / "failure").write_text("old")
    again = open_runtime_directory(str(place))
    assert not (place / "failure").exists()
    os.close(again.lock)


def test_runtime_directories_that_are_refused(tmp_path: Path) -> None:
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o755)
    with pytest.raises(StartupError, match="0700"):
        open_runtime_directory(str(open_to_all))
    with pytest.raises(StartupError, match="too long"):
        open_runtime_directory(str(tmp_path / ("x" * 120)))
    (tmp_path / "file").touch()
    with pytest.raises(StartupError, match="cannot be used"):
        open_runtime_directory(str(tmp_path / "file"))


def test_sweeping_leaves_directories_in_use(temporary: Path) -> None:
    used = open_runtime_directory(None)
    left = open_runtime_directory(None)
    os.close(left.lock)
    (temporary / "millrace-of-somebody").mkdir(mode=0o700)
    sweep()
    assert used.path.exists()
    assert not left.path.exists()
    assert (temporary / "millrace-of-somebody").exists()
    used.remove()


# --- listener ---------------------------------------------------------------------------------


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def deaths(name: str, expected: str = "0") -> dict[str, str]:
    return {"processname": name, "expected": expected}


def test_a_failure_before_the_server_is_ready_ends_everything(tmp_path: Path) -> None:
    failure = tmp_path / "failure"
    watcher = Watcher(failure)
    failure.write_text("no")
    assert not watcher.see("PROCESS_STATE_STARTING", deaths("worker_0"))
    assert watcher.see(BACKOFF, deaths("worker_0"))
    assert failure.read_text() == "no"


def test_crashes_before_the_server_is_ready_are_counted_by_program(tmp_path: Path) -> None:
    watcher = Watcher(tmp_path / "failure")
    names = ("worker_0", "frontend", "worker_0", "frontend")
    assert not any(watcher.see(EXITED, deaths(name)) for name in names)
    assert watcher.see(BACKOFF, deaths("worker_0"))
    assert "worker_0 died 3 times" in (tmp_path / "failure").read_text()


def test_a_ready_server_goes_on(tmp_path: Path) -> None:
    failure, clock = tmp_path / "failure", Clock()
    watcher = Watcher(failure, clock)
    assert not watcher.see(EXITED, deaths("announce", expected="1"))
    assert not any(watcher.see(EXITED, deaths("worker_0")) for _ in range(50))
    for _ in range(5):  # seldom enough
        failure.write_text("no memory")
        clock.now += FAILURES_WITHIN_S
        assert not watcher.see(EXITED, deaths("worker_0"))
        assert not failure.exists()
    failure.write_text("no memory")
    assert not watcher.see(EXITED, deaths("worker_0"))
    failure.write_text("no memory")
    assert watcher.see(EXITED, deaths("worker_0"))
    assert failure.exists()


def test_an_announcer_that_was_stopped_does_not_make_the_server_ready(tmp_path: Path) -> None:
    watcher = Watcher(tmp_path / "failure")
    watcher.see(EXITED, deaths("announce", expected="0"))
    assert [watcher.see(EXITED, deaths("frontend")) for _ in range(3)] == [False, False, True]


def test_the_event_protocol() -> None:
    payload = b"processname:worker_0 groupname:worker from_state:RUNNING expected:0 pid:7"
    header = f"ver:3.0 serial:1 pool:listener eventname:{EXITED} len:{len(payload)}\n".encode()
    readable, writable = os.pipe()
    with os.fdopen(writable, "wb", buffering=0) as outgoing, os.fdopen(readable, "rb") as said:
        found = list(events(io.BytesIO(header + payload), outgoing))
        outgoing.close()
        assert said.read() == b"READY\nRESULT 2\nOKREADY\n"
    assert found == [(EXITED, {**deaths("worker_0"), "groupname": "worker",
                               "from_state": "RUNNING", "pid": "7"})]  # fmt: skip


# --- announcement -----------------------------------------------------------------------------


def test_waits_longer_each_time_but_never_long() -> None:
    answers, pauses = iter([False] * 20 + [True]), []
    wait_until_healthy(lambda: next(answers), pauses.append)
    assert pauses[0] == 0.2
    assert pauses == sorted(pauses)
    assert pauses[-1] == 1.0


def test_health_is_asked_over_http() -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else 500)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        assert is_healthy("127.0.0.1", server.server_port)
    assert not is_healthy("127.0.0.1", server.server_port)


@pytest.mark.parametrize(
    ("hostname", "asked", "shown"),
    [
        ("0.0.0.0", "127.0.0.1", "localhost"),
        ("::", "::1", "localhost"),
        ("10.1.2.3", "10.1.2.3", "10.1.2.3"),
        ("fe80::1", "fe80::1", "[fe80::1]"),
    ],
)
def test_addresses(hostname: str, asked: str, shown: str) -> None:
    assert reachable(hostname) == asked
    settings = Settings(model_id="m", model_dir="/m", hostname=hostname, port=8080)
    text = announcement(settings)
    assert text.count(f"http://{shown}:8080/") == 2
    assert "authorization" not in text
    with_key = announcement(msgspec.structs.replace(settings, api_key="hush"))
    assert "authorization" in with_key
    assert "hush" not in with_key


def test_what_is_announced_can_be_pasted() -> None:
    text = announcement(Settings(model_id="m", model_dir="/m", hostname="127.0.0.1", port=8080))
    for command in text.split("\n\n")[1:]:
        check = subprocess.run(["bash", "-n"], input=command, text=True, check=False)
        assert check.returncode == 0
        assert msgspec.json.decode(command.rsplit("'", 2)[1])


# --- start ------------------------------------------------------------------------------------


def resolution_of(*arguments: str, **environ: str) -> Resolution:
    resolution = resolve(parse_arguments(arguments).given, environ)
    derive(resolution, None, Machine(2))
    return resolution


def test_settings_carry_every_resolved_value(tmp_path: Path) -> None:
    found = resolution_of(
        "--api-key", "k", "--no-prefix-caching", "--max-input-tokens", "7", LOG_LEVEL="debug"
    )
    settings = build_settings(found, Model("m", tmp_path, "abc", "tag"), "/dir", "/run")
    assert (settings.api_key, settings.prefix_caching, settings.max_input_tokens) == ("k", False, 7)
    assert (settings.model_id, settings.model_dir, settings.model_sha) == ("m", "/dir", "abc")
    assert (settings.model_pipeline_tag, settings.log_level) == ("tag", "DEBUG")
    assert settings.runtime_dir == "/run"
    assert msgspec.json.decode(msgspec.json.encode(settings), type=Settings) == settings
    assert "k'" not in repr(settings)


def test_relative_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.json").write_text("{}")
    found = resolution_of("--tokenizer-config-path", "t.json")
    settings = build_settings(found, Model("m", tmp_path), "/dir", "/run")
    assert settings.tokenizer_config_path == str(tmp_path / "t.json")


def test_ports() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for flag in ("--port", "--prometheus-port"):
            with pytest.raises(StartupError) as caught:
                check_ports(resolution_of("--hostname", "127.0.0.1", flag, port))
            assert f"port {port}" in str(caught.value)
            assert flag in str(caught.value)
    check_port("127.0.0.1", int(port), "--port")


def test_children_get_no_secrets() -> None:
    secrets = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_API_TOKEN", "API_KEY", "TGI_API_KEY")
    environ = {**dict.fromkeys(secrets, "hush"), "PATH": "/bin", "GUNICORN_CMD_ARGS": "--reload"}
    kept = child_environment(environ)
    assert "hush" not in kept.values()
    assert kept["PATH"] == "/bin"
    assert kept["HF_HUB_OFFLINE"] == "1"
    assert "GUNICORN_CMD_ARGS" not in kept


# --- reports ----------------------------------------------------------------------------------


def test_dry_run_says_what_and_why() -> None:
    found = resolution_of("--api-key", "hush", "--max-input-tokens", "7", MAX_TOTAL_TOKENS="auto")
    text = dry_run(found, ["directory /m"])
    rows = {line.split()[0]: line.split(maxsplit=2)[1:] for line in text.splitlines() if "  " in line}
    assert rows["max_input_tokens"] == ["7", "flag --max-input-tokens"]
    assert rows["max_total_tokens"] == ["2048", "derived: the model names no context"]
    assert rows["max_best_of"] == ["2", "default"]
    assert rows["worker_threads"] == ["2", "derived: 2 cores"]
    assert "set (hidden)" in text
    assert "hush" not in text
    assert "quantize" not in text


def test_environment_report_hides_secrets() -> None:
    environ = {"API_KEY": "hush", "HF_TOKEN": "hush", "MODEL_ID": "m", "OTHER": "x"}
    text = environment_report(Machine(2, ("NVIDIA H200",)), environ)
    assert "hush" not in text
    assert "  API_KEY=set (hidden)\n  HF_TOKEN=set (hidden)\n  MODEL_ID=m" in text
    assert "OTHER" not in text
    assert "GPUs: NVIDIA H200" in text
    assert "torch 2" in text


# --- progress ---------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_in_a_log_and_on_a_terminal() -> None:
    clock, said = Clock(), []
    progress = Progress(2000, 500, say=said.append, stream=io.StringIO(), clock=clock)
    progress.add(100)
    clock.now = 10.0
    progress.add(400)
    progress.close()
    assert said == ["downloading: 1.0 kB of 2.0 kB (50 %), 50 B/s"]
    screen = Terminal()
    progress = Progress(1000, say=said.append, stream=screen, clock=clock)
    clock.now += 1
    progress.add(1000)
    progress.close()
    assert screen.getvalue().startswith("\rdownloading: 1.0 kB of 1.0 kB (100 %), 1.0 kB/s")
    assert screen.getvalue().endswith("\n")
    assert len(said) == 1


@pytest.mark.parametrize(
    ("count", "text"), [(7, "7 B"), (1500, "1.5 kB"), (16 * 10**9, "16.0 GB"), (10**13, "10.0 TB")]
)
def test_bytes_for_humans(count: int, text: str) -> None:
    assert human(count) == text


def test_which_troubles_pass() -> None:
    assert _passing(CutOffError())
    assert _passing(ConnectionResetError())
    assert not _passing(OSError(28, "No space left on device"))
    assert not _passing(ValueError())
