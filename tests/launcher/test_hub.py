"""Downloads, against a hub of our own: what is fetched, resumed, cached, and every sentence."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from common.errors import StartupError
from launcher.hub import fetch, is_repository_name, open_hub
from launcher.hub_cache import cached, point
from tests.launcher.hub_standin import SHA, HubState, Repository, hub_at, serving
from tests.launcher.models import model_files, sharded_files, weights
from tests.launcher.standins import ROOT
from tests.processes import started

NAME = "org/model"
LARGE = weights({"big": 300_000})


def sentence(state: HubState, tmp_path: Path, revision: str | None = None, **kwargs) -> str:
    with serving(state) as url, pytest.raises(StartupError) as caught:
        fetch(hub_at(url, tmp_path, **kwargs), NAME, revision)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_fetches_what_is_needed_and_nothing_else(tmp_path: Path) -> None:
    unwanted = {
        "pytorch_model.bin": b"pickle",
        "consolidated.safetensors": weights(),
        "original/consolidated.safetensors": weights(),
        "original/params.json": b"{}",
        "README.md": b"# model",
        "training_args.bin": b"pickle",
    }
    wanted = {
        **model_files(),
        "chat_template.jinja": b"{{ messages }}",
        "merges.txt": b"a b",
        "tokenizer.model": b"spm",
    }
    state = HubState({NAME: Repository({**wanted, **unwanted})})
    with serving(state) as url:
        snapshot = fetch(hub_at(url, tmp_path), NAME, None)
    assert (snapshot.sha, snapshot.pipeline_tag) == (SHA, "text-generation")
    assert {path.name: path.read_bytes() for path in snapshot.directory.iterdir()} == wanted
    assert not any(name in path for name in unwanted for _, path, _, _ in state.asked)


def test_the_hub_client_finds_what_we_fetched(tmp_path: Path) -> None:
    from huggingface_hub import try_to_load_from_cache

    with serving(HubState({NAME: Repository(model_files())})) as url:
        snapshot = fetch(hub_at(url, tmp_path), NAME, None)
    found = try_to_load_from_cache(NAME, "model.safetensors", cache_dir=tmp_path / "cache")
    assert found == str(snapshot.directory / "model.safetensors")


def test_a_second_fetch_moves_nothing(tmp_path: Path) -> None:
    state = HubState({NAME: Repository(sharded_files())})
    with serving(state) as url:
        fetch(hub_at(url, tmp_path), NAME, "main")
        state.asked.clear()
        fetch(hub_at(url, tmp_path), NAME, "main")
    assert [path for _, path, _, _ in state.asked] == [f"/api/models/{NAME}/revision/main"]


@pytest.mark.parametrize("ranges", [True, False])
def test_broken_connections_are_resumed(tmp_path: Path, ranges: bool) -> None:
    files = {**model_files(), "model.safetensors": LARGE}
    state = HubState({NAME: Repository(files)}, cut_after=100_000, cuts=2, ranges=ranges)
    with serving(state) as url:
        snapshot = fetch(hub_at(url, tmp_path), NAME, None)
    assert (snapshot.directory / "model.safetensors").read_bytes() == LARGE
    assert state.gets("model.safetensors")[:2] == [None, "bytes=100000-"]


def test_a_connection_that_always_breaks_is_given_up(tmp_path: Path) -> None:
    state = HubState({NAME: Repository(model_files())}, cut_after=0, cut_file=".safetensors")
    assert "start again to go on" in sentence(state, tmp_path)


def test_damaged_part_is_fetched_anew(tmp_path: Path) -> None:
    state = HubState({NAME: Repository({**model_files(), "model.safetensors": LARGE})})
    blobs = tmp_path / "cache" / "models--org--model" / "blobs"
    blobs.mkdir(parents=True)
    part = blobs / f"{hashlib.sha256(LARGE).hexdigest()}.millrace-incomplete"
    part.write_bytes(b"x" * 1000)
    with serving(state) as url:
        snapshot = fetch(hub_at(url, tmp_path), NAME, None)
    assert (snapshot.directory / "model.safetensors").read_bytes() == LARGE
    assert state.gets("model.safetensors") == ["bytes=1000-", None]


def test_a_damaged_body_is_fetched_anew(tmp_path: Path) -> None:
    files = {**model_files(), "model.safetensors": LARGE}
    state = HubState({NAME: Repository(files)}, damage=1, cut_file=".safetensors")
    with serving(state) as url:
        snapshot = fetch(hub_at(url, tmp_path), NAME, None)
    assert (snapshot.directory / "model.safetensors").read_bytes() == LARGE
    assert state.gets("model.safetensors") == [None, None]


def test_bodies_that_are_always_damaged_are_refused(tmp_path: Path) -> None:
    files = {**model_files(), "model.safetensors": LARGE}
    state = HubState({NAME: Repository(files)}, damage=10**9, cut_file=".safetensors")
    assert "model.safetensors is not what the hub names" in sentence(state, tmp_path)
    blobs = tmp_path / "cache" / "models--org--model" / "blobs"
    assert not (blobs / hashlib.sha256(LARGE).hexdigest()).exists()


def test_two_that_link_a_file_at_the_same_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob, pointer = tmp_path / "blob", tmp_path / "pointer"
    blob.write_bytes(b"here")
    link = Path.symlink_to

    def link_second(path: Path, target: str) -> None:
        monkeypatch.setattr(Path, "symlink_to", link)
        point(pointer, blob)  # the other one, between any two acts of the first
        link(path, target)

    monkeypatch.setattr(Path, "symlink_to", link_second)
    point(pointer, blob)
    assert pointer.read_bytes() == b"here"
    assert {path.name for path in tmp_path.iterdir()} == {"blob", "pointer"}


def download(url: str, tmp_path: Path) -> AbstractContextManager[subprocess.Popen]:
    return started(
        [sys.executable, "-m", "launcher", "download", NAME],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "HF_ENDPOINT": url,
            "HUGGINGFACE_HUB_CACHE": str(tmp_path / "cache"),
        },
        # A shell that puts the tests into the background has them ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_download_goes_on_where_it_stopped(
    tmp_path: Path, number: signal.Signals
) -> None:
    hold = threading.Event()
    files = {**model_files(), "model.safetensors": LARGE}
    state = HubState({NAME: Repository(files)}, cut_after=700_000, cuts=1, hold=hold)
    with serving(state) as url:
        with download(url, tmp_path) as first:
            assert state.held.wait(30)
            (part,) = _parts(tmp_path, at_least=700_000)
            first.send_signal(number)
            output, _ = first.communicate(timeout=20)
        assert first.returncode in (-number, 128 + number), output
        assert part.stat().st_size == 700_000
        hold.set()
        with download(url, tmp_path) as second:
            output, _ = second.communicate(timeout=60)
    assert second.returncode == 0, output
    assert state.gets("model.safetensors") == [None, "bytes=700000-"]
    directory = Path(output.splitlines()[-1])
    assert (directory / "model.safetensors").read_bytes() == LARGE


def _parts(tmp_path: Path, at_least: int) -> list[Path]:
    """The unfinished files, once the bytes that were sent have been written down."""
    blobs = tmp_path / "cache" / "models--org--model" / "blobs"
    end = time.monotonic() + 20
    while time.monotonic() < end:
        parts = [path for path in blobs.glob("*.millrace-incomplete") if _size(path) >= at_least]
        if parts:
            return parts
    raise AssertionError("the bytes did not arrive")


def _size(path: Path) -> int:
    """RACE: another file may be complete by now, and be called otherwise."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def test_gated(tmp_path: Path) -> None:
    state = HubState({NAME: Repository(model_files(), gated=True)})
    assert "is gated" in sentence(state, tmp_path)
    assert "is gated" in sentence(state, tmp_path, token="bad")
    assert state.gets("model.safetensors") == []
    with serving(state) as url:
        fetch(hub_at(url, tmp_path, token="good"), NAME, None)


def test_the_token_goes_to_the_hub_only(tmp_path: Path) -> None:
    files = Repository(model_files(), gated=True)
    other = HubState({NAME: Repository(model_files())})
    with serving(other) as elsewhere:
        state = HubState({NAME: files}, elsewhere=elsewhere.replace("127.0.0.1", "localhost"))
        with serving(state) as url:
            snapshot = fetch(hub_at(url, tmp_path, token="good"), NAME, None)
    assert (snapshot.directory / "tokenizer.json").exists()
    assert all(token == "Bearer good" for *_, token in state.asked)
    assert other.asked
    assert all(token is None for *_, token in other.asked)


def test_missing_repository(tmp_path: Path) -> None:
    text = sentence(HubState({}), tmp_path)
    assert "has no repository org/model" in text
    assert "HF_TOKEN" in text
    assert "--model-id" in text


def test_missing_revision(tmp_path: Path) -> None:
    state = HubState({NAME: Repository(model_files())})
    assert "has no revision v9" in sentence(state, tmp_path, "v9")


def test_no_network(tmp_path: Path) -> None:
    with serving(HubState({})) as url:
        pass
    with pytest.raises(StartupError, match="cannot be reached"):
        fetch(hub_at(url, tmp_path), NAME, None)


def test_a_broken_hub_and_a_cached_model(tmp_path: Path) -> None:
    state = HubState({NAME: Repository(model_files())})
    said: list[str] = []
    with serving(state) as url:
        hub = hub_at(url, tmp_path, said=said)
        first = fetch(hub, NAME, None)
        state.broken = True
        assert fetch(hub, NAME, None).directory == first.directory
    assert "using the copy downloaded before" in said[-1]
    assert "cannot be reached" in sentence(HubState({}, broken=True), tmp_path / "b")


def test_no_room(tmp_path: Path) -> None:
    state = HubState({NAME: Repository(model_files(), sizes={"model.safetensors": 7 * 10**9})})
    text = sentence(state, tmp_path, free_bytes=lambda path: 10**9)
    assert "needs 7.0 GB more" in text
    assert "1.0 GB are free" in text
    assert state.gets("model.safetensors") == []


def test_only_pickled_weights(tmp_path: Path) -> None:
    files = model_files()
    files["pytorch_model.bin"] = files.pop("model.safetensors")
    assert "pickled weights (pytorch_model.bin)" in sentence(
        HubState({NAME: Repository(files)}), tmp_path
    )


def test_not_a_model(tmp_path: Path) -> None:
    assert "no config.json" in sentence(HubState({NAME: Repository({"a.txt": b""})}), tmp_path)


@pytest.mark.parametrize(
    ("config", "base"),
    [(b"{}", "BASE"), (b'{"base_model_name_or_path": "org/base"}', "org/base")],
)
def test_an_adapter_is_no_model(tmp_path: Path, config: bytes, base: str) -> None:
    adapter = {"adapter_config.json": config, "adapter_model.safetensors": weights()}
    state = HubState({NAME: Repository(adapter)})
    assert (
        f"{NAME} is not a model that can be served: it has no config.json; it is an adapter: serve "
        f"its base model with it, --model-id {base} --lora-adapters {NAME}"
    ) in sentence(state, tmp_path)
    assert state.gets("adapter_model.safetensors") == []


def test_offline(tmp_path: Path) -> None:
    state = HubState({NAME: Repository(model_files())})
    with serving(state) as url:
        snapshot = fetch(hub_at(url, tmp_path), NAME, None)
        state.asked.clear()
        offline = hub_at(url, tmp_path, offline=True)
        assert fetch(offline, NAME, None).directory == snapshot.directory
        assert fetch(offline, NAME, SHA).sha == SHA
        assert cached(offline, NAME, "other") is None
        with pytest.raises(StartupError, match="HF_HUB_OFFLINE"):
            fetch(offline, "org/other", None)
    assert state.asked == []


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    text = sentence(HubState({NAME: Repository(model_files())}), tmp_path)
    assert "cannot write" in text
    assert "--huggingface-hub-cache" in text


def test_the_environment_describes_the_hub(tmp_path: Path) -> None:
    environ = {"HF_ENDPOINT": "http://x/", "HF_HUB_OFFLINE": "1", "HUGGING_FACE_HUB_TOKEN": "t"}
    hub = open_hub(str(tmp_path), environ, print)
    assert (hub.endpoint, hub.offline, hub.token, hub.cache) == ("http://x", True, "t", tmp_path)
    assert open_hub(None, {}, print).cache.is_absolute()


@pytest.mark.parametrize(
    ("name", "good"),
    [("gpt2", True), ("org/name-1.5_x", True), ("a b", False), ("a/b/c", False), ("a/../b", False)],
)
def test_repository_names(name: str, good: bool) -> None:
    assert is_repository_name(name) is good
