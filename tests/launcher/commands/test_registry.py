"""The table of commands: every row works, and typing errors are answered."""

import pytest

from launcher.commands.registry import COMMANDS, choose
from launcher.reference import help_text
from launcher.resolve import UsageError


@pytest.mark.parametrize("command", COMMANDS.values(), ids=lambda command: command.name)
def test_every_command_can_be_loaded_and_is_explained(command) -> None:
    assert callable(command.load())
    assert f"{command.name} {command.arguments}".strip() in help_text().replace("]", "", 1)


@pytest.mark.parametrize(
    ("arguments", "name", "rest"),
    [
        ([], "serve", []),
        (["--port", "80"], "serve", ["--port", "80"]),
        (["serve", "-p", "80"], "serve", ["-p", "80"]),
        (["download", "org/name"], "download", ["org/name"]),
    ],
)
def test_choice(arguments, name, rest) -> None:
    command, left = choose(arguments)
    assert (command.name, left) == (name, rest)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("download", ["download MODEL [FLAGS]", "--revision", "HF_TOKEN"]),
        ("doctor", ["doctor [FLAGS] [--json]", "exit status"]),
        ("env", ["env [FLAGS]"]),
        ("print-schema", ["print-schema"]),
    ],
)
def test_the_help_of_a_command_is_about_it_and_fits_a_screen(name, words, capsys) -> None:
    assert choose([name])[0].load()(["--help"], {}) == 0
    said = capsys.readouterr().out
    assert all(word in said for word in words)
    assert len(said.splitlines()) < 24
    assert ("serve --help" in said) == ("FLAGS" in said)


def test_the_help_of_serve_has_all_flags(capsys) -> None:
    assert choose(["serve"])[0].load()(["--help"], {}) == 0
    assert "--max-batch-prefill-tokens" in capsys.readouterr().out


def test_typing_errors() -> None:
    with pytest.raises(UsageError, match="a model is given as --model-id org/name"):
        choose(["org/name"])
    with pytest.raises(UsageError, match="millrace --help says"):
        choose(["help"])
    with pytest.raises(UsageError, match="did you mean download"):
        choose(["donwload"])
    with pytest.raises(UsageError, match=r"there are serve, .*download"):
        choose(["xyz"])
