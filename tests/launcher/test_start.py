"""Settings, ports, and the environment of the processes."""

import socket
from pathlib import Path

import msgspec
import pytest

from common.errors import StartupError
from common.keys import digests
from common.settings import Settings
from launcher.arguments import parse_arguments
from launcher.children import child_environment
from launcher.limits import derive
from launcher.machine import Machine
from launcher.model import Model
from launcher.resolve import Resolution, resolve
from launcher.start import build_settings, check_port, check_ports


def resolution_of(*arguments: str, **environ: str) -> Resolution:
    resolution = resolve(parse_arguments(arguments).given, environ)
    derive(resolution, None, Machine(2))
    return resolution


def test_settings_carry_every_resolved_value(tmp_path: Path) -> None:
    found = resolution_of(
        "--api-key", "k,long one", "--api-key", "other", "--no-prefix-caching",
        "--max-input-tokens", "7", "--queue-timeout", "2.5", LOG_LEVEL="debug",
    )  # fmt: skip
    settings = build_settings(found, Model("m", tmp_path, "abc", "tag"), "/dir", "/run")
    assert settings.api_key_digests == digests(["k", "long one", "other"])
    assert settings.needs_key
    assert (settings.prefix_caching, settings.max_input_tokens) == (False, 7)
    assert settings.queue_timeout == 2.5
    assert (settings.model_id, settings.model_dir, settings.model_sha) == ("m", "/dir", "abc")
    assert (settings.model_pipeline_tag, settings.log_level) == ("tag", "DEBUG")
    assert settings.runtime_dir == "/run"
    assert msgspec.json.decode(msgspec.json.encode(settings), type=Settings) == settings
    assert b"long one" not in msgspec.json.encode(settings)
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
            assert "stop what uses it" in str(caught.value)
    check_port("127.0.0.1", int(port), "--port")


def test_an_address_of_another_machine() -> None:
    with pytest.raises(StartupError, match="--hostname has to be an address of this machine"):
        check_port("203.0.113.1", 0, "--port")


def test_children_get_no_secrets() -> None:
    secrets = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_API_TOKEN", "API_KEY", "TGI_API_KEY")
    environ = {**dict.fromkeys(secrets, "hush"), "PATH": "/bin", "GUNICORN_CMD_ARGS": "--reload"}
    kept = child_environment(environ)
    assert "hush" not in kept.values()
    assert kept["PATH"] == "/bin"
    assert kept["HF_HUB_OFFLINE"] == "1"
    assert "GUNICORN_CMD_ARGS" not in kept
