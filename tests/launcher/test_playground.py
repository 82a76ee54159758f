"""When there is a playground: by itself, with keys, and when it is asked for."""

from pathlib import Path

import pytest

from common.errors import StartupError
from launcher.arguments import parse_arguments
from launcher.limits import derive
from launcher.machine import Machine
from launcher.model import Model
from launcher.resolve import Resolution, resolve
from launcher.start import build_settings


def derived(flags: str = "", **environ: str) -> Resolution:
    resolution = resolve(parse_arguments(flags.split()).given, environ)
    derive(resolution, None, Machine(2))
    return resolution


@pytest.mark.parametrize(
    ("flags", "environ", "on"),
    [
        ("", {}, True),
        ("--playground", {}, True),
        ("--no-playground", {}, False),
        ("", {"TGI_PLAYGROUND": "false"}, False),
        ("--playground", {"TGI_PLAYGROUND": "false"}, True),
        ("", {"PLAYGROUND": "false"}, True),
        ("--api-key a", {}, False),
        ("", {"API_KEY": "a"}, False),
        ("--api-key a", {"TGI_PLAYGROUND": "auto"}, False),
        ("--api-key a --playground", {}, True),
        ("--api-key a --open-routes /playground", {}, True),
        ("--api-key a --open-routes /info", {}, False),
        ("--api-key a --open-routes /playground --playground", {}, True),
        ("--api-key a --open-routes /info --no-playground", {}, False),
    ],
)
def test_when_it_is_on(flags: str, environ: dict[str, str], on: bool) -> None:
    resolution = derived(flags, **environ)
    assert resolution["playground"] is on
    model = Model("org/model", Path("/nowhere"))
    assert build_settings(resolution, model, "/nowhere", "/run").playground is on


def test_a_key_file_counts_as_keys(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("a\n")
    assert derived(f"--api-key-file {tmp_path}/keys")["playground"] is False


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        ("", "derived: no API key is set"),
        ("--api-key a", "derived: API keys are set"),
        ("--api-key a --open-routes /playground", "derived: --open-routes names /playground"),
        ("--no-playground", "flag --no-playground"),
    ],
)
def test_it_says_why(flags: str, why: str) -> None:
    assert derived(flags).values["playground"].source == why


def test_a_page_that_no_browser_can_open_is_warned_about() -> None:
    (note,) = derived("--api-key a --playground").notes
    assert note.level == "warning"
    assert "add --open-routes /playground" in note.text
    for flags in ("--playground", "--api-key a --playground --open-routes /playground"):
        assert derived(flags).notes == []


def test_opened_and_switched_off_contradict_each_other() -> None:
    with pytest.raises(StartupError, match=r"--open-routes opens /playground, which --no-play"):
        derived("--api-key a --open-routes /playground --no-playground")
