"""``--lora-adapters``: what its items mean, where adapters come from, and every sentence."""

from pathlib import Path

import pytest

from common.adapters import CONFIG, WEIGHTS, digest_of
from common.errors import StartupError
from launcher import adapters
from launcher.adapters import Item
from launcher.arguments import parse_arguments
from launcher.hub import ADAPTER, fetch
from launcher.model import find_local
from launcher.resolve import Resolution, resolve
from tests.launcher.hub_standin import SHA, HubState, Repository, hub_at, serving
from tests.launcher.models import weights, write

FILES = {CONFIG: b"{}", WEIGHTS: weights()}


def resolution_of(*flags: str, **environ: str) -> Resolution:
    return resolve(parse_arguments(flags).given, environ)


def of(text: str, **environ: str) -> Resolution:
    return resolution_of("--lora-adapters", text, **environ)


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("org/a", [Item("org/a", "org/a", None)]),
        ("org/a@v2", [Item("org/a", "org/a", "v2")]),
        ("x=org/a@v2", [Item("x", "org/a", "v2")]),
        ("x=/data/a", [Item("x", "/data/a", None)]),
        ("/data/a@v2", [Item("/data/a", "/data/a", "v2")]),
        ("a, b=c ,", [Item("a", "a", None), Item("b", "c", None)]),
    ],
)
def test_items(text: str, items: list[Item]) -> None:
    assert adapters.parse(of(text)) == items
    assert adapters.parse(resolution_of(LORA_ADAPTERS=text)) == items


def test_flags_add_up() -> None:
    found = adapters.parse(resolution_of("--lora-adapters", "a", "--lora-adapters", "b,c"))
    assert [item.name for item in found] == ["a", "b", "c"]
    assert adapters.parse(resolution_of()) == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a,b,a", "--lora-adapters names two adapters a: give one of them another name"),
        ("millrace-builtin=b", "millrace-builtin is the name of the model: give the adapter"),
        ("=b", "'=b' is none of NAME, NAME@REVISION, NAME=PLACE, NAME=PLACE@REVISION"),
        ("a=", "'a=' is none of"),
        ("a@", "'a@' is none of"),
        ("a=@v2", "'a=@v2' is none of"),
    ],
)
def test_items_that_make_no_sense(text: str, why: str) -> None:
    with pytest.raises(StartupError) as caught:
        adapters.parse(of(text))
    assert why in str(caught.value)


def found_in(text: str, said: list[str] | None = None) -> list:
    return adapters.find(of(text), {}, (said if said is not None else []).append)


def test_local_directories(tmp_path: Path) -> None:
    one = write(tmp_path / "a", FILES)
    two = write(tmp_path / "b", FILES | {CONFIG: b'{"r": 1}'})
    said: list[str] = []
    found = found_in(f"x={one},y={two},z={one}@v2", said)
    assert [adapter.name for adapter in found] == ["x", "y", "z"]
    assert [adapter.directory for adapter in found] == [str(one), str(two), str(one)]
    assert found[0].digest == found[2].digest == digest_of(one)
    assert found[1].digest != found[0].digest
    assert said == [f"{one} is a directory: its revision v2 is not looked at"]


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({WEIGHTS: weights()}, f"has no {CONFIG}"),
        ({CONFIG: b"{}"}, f"has no weights: {WEIGHTS} is not there"),
        ({CONFIG: b"{}", "adapter_model.bin": b"x"}, "only pickled weights (adapter_model.bin)"),
        ({CONFIG: b"{}", WEIGHTS: weights()[:-1]}, "is cut off"),
    ],
)
def test_directories_that_hold_no_adapter(tmp_path: Path, files, why: str) -> None:
    directory = write(tmp_path / "a", files)
    with pytest.raises(StartupError) as caught:
        found_in(f"x={directory}")
    assert why in str(caught.value)


@pytest.mark.parametrize("place", ["/nowhere/a", "./a", "a/b/c", "~/.no-such-place"])
def test_places_that_are_not_there(place: str) -> None:
    with pytest.raises(StartupError, match="--lora-adapters: there is no directory"):
        found_in(place)


@pytest.mark.parametrize(
    ("place", "why"),
    [("~no-such-user/a", "home directory"), ("a" * 5000, "too long"), ("/a" * 3000, "too long")],
)
def test_places_that_cannot_be_looked_for(place: str, why: str) -> None:
    sentence = rf"^--lora-adapters: {place} cannot be looked for: .*{why}"
    with pytest.raises(StartupError, match=sentence):
        found_in(place)
    with pytest.raises(StartupError, match=sentence.replace("lora-adapters", "model-id")):
        find_local(resolution_of("--model-id", place))


def test_names_that_are_no_text() -> None:
    with pytest.raises(StartupError, match=r"^--lora-adapters: '\\udcff=a' is not UTF-8$"):
        of("\udcff=a")
    with pytest.raises(StartupError, match=r"^API_KEY: the value is not UTF-8$"):
        resolution_of(API_KEY="\udcff")


def test_the_digest_is_of_both_files(tmp_path: Path) -> None:
    files = [FILES, FILES | {CONFIG: b"{ }"}, FILES | {WEIGHTS: weights({"b": 4})}]
    digests = [digest_of(write(tmp_path / str(n), given)) for n, given in enumerate(files)]
    assert len(set(digests)) == len(files)
    assert digest_of(write(tmp_path / "again", FILES | {"README.md": b"x"})) == digests[0]


def test_repositories(tmp_path: Path) -> None:
    state = HubState({"org/a": Repository(FILES | {"README.md": b"#", "tokenizer.json": b"{}"})})
    with serving(state) as url:
        resolution = of("x=org/a@main", HUGGINGFACE_HUB_CACHE=str(tmp_path / "cache"))
        said: list[str] = []
        (found,) = adapters.find(resolution, {"HF_ENDPOINT": url}, said.append)
    directory = Path(found.directory)
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == FILES
    assert (found.name, found.source) == ("x", f"org/a@{SHA}")
    (again,) = adapters.find(resolution, {"HF_ENDPOINT": url, "HF_HUB_OFFLINE": "1"}, said.append)
    assert again == found


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"config.json": b"{}"}, f"org/a is no adapter: it has no {CONFIG}"),
        ({CONFIG: b"{}", "adapter_model.bin": b"x"}, "org/a has only pickled weights"),
    ],
)
def test_repositories_that_hold_no_adapter(tmp_path: Path, files, why: str) -> None:
    with (
        serving(HubState({"org/a": Repository(files)})) as url,
        pytest.raises(StartupError) as caught,
    ):
        fetch(hub_at(url, tmp_path), "org/a", None, ADAPTER)
    assert why in str(caught.value)


def test_a_repository_that_is_not_there_is_told_by_its_option(tmp_path: Path) -> None:
    with serving(HubState({})) as url, pytest.raises(StartupError) as caught:
        fetch(hub_at(url, tmp_path), "org/a", None, ADAPTER)
    assert "check --lora-adapters for a typing error" in str(caught.value)
