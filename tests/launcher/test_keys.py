"""Key options: several keys, a file, opened routes; what is refused, and what is handed on."""

from pathlib import Path

import pytest

from common.errors import StartupError
from common.keys import digests
from common.option import Option
from common.options import OPTIONS
from launcher.arguments import parse_arguments
from launcher.keys import key_settings
from launcher.limits import check_combinations
from launcher.resolve import Resolution, UsageError, resolve


def resolved(*arguments: str, **environ: str) -> Resolution:
    resolution = resolve(parse_arguments(arguments).given, environ)
    check_combinations(resolution)
    return resolution


@pytest.mark.parametrize(
    ("arguments", "environ", "keys"),
    [
        ((), {}, []),
        (("--api-key", "a"), {}, ["a"]),
        (("--api-key", "a, b", "--api-key", "c"), {}, ["a", "b", "c"]),
        ((), {"API_KEY": "a"}, ["a"]),
        ((), {"TGI_API_KEY": "a,b", "API_KEY": "c"}, ["a", "b"]),
    ],
)
def test_several_keys(arguments: tuple[str, ...], environ: dict[str, str], keys: list[str]) -> None:
    fields = key_settings(resolved(*arguments, **environ))
    assert fields == {"api_key_digests": digests(keys), "api_key_file": None}


@pytest.mark.parametrize(
    ("arguments", "environ"),
    [(("--api-key", ""), {}), (("--api-key", " , "), {}), ((), {"API_KEY": ","})],
)
def test_an_empty_list_does_not_open_the_server(
    arguments: tuple[str, ...], environ: dict[str, str]
) -> None:
    with pytest.raises(UsageError, match="must hold a key"):
        resolved(*arguments, **environ)


def test_complaints_do_not_show_keys() -> None:
    with pytest.raises(UsageError) as caught:
        resolved("--api-key", ",".join(["hush"] * 1001))
    assert "at most 1000 keys" in str(caught.value)
    assert "hush" not in str(caught.value)


def test_a_file_of_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "keys").write_text("a\n")
    fields = key_settings(resolved("--api-key-file", "keys", "--open-routes", "/info,/metrics"))
    assert fields == {"api_key_digests": [], "api_key_file": str(tmp_path / "keys")}


@pytest.mark.parametrize("content", [None, "", "# none\n"])
def test_a_useless_file_is_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "keys"
    if content is not None:
        path.write_text(content)
    with pytest.raises(StartupError, match=r"--api-key-file: .*keys (holds no|cannot be read)"):
        resolved("--api-key-file", str(path))
    with pytest.raises(StartupError, match=r"^TGI_API_KEY_FILE: "):
        resolved(TGI_API_KEY_FILE=str(path))


def test_routes_that_cannot_be_opened_or_need_not() -> None:
    with pytest.raises(UsageError, match="'/info,/generate' must be paths among /info"):
        resolved("--api-key", "a", "--open-routes", "/info,/generate")
    with pytest.raises(StartupError, match="--open-routes is set, but no key is"):
        resolved("--open-routes", "/info")
    assert resolved("--api-key", "a", "--open-routes", "/info")["open_routes"] == ["/info"]


def test_the_file_is_no_secret_but_keys_are() -> None:
    secret: list[Option] = [option for option in OPTIONS.values() if option.secret]
    assert OPTIONS["api_key"] in secret
    assert OPTIONS["api_key_file"] not in secret
