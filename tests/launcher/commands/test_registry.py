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


def test_typing_errors() -> None:
    with pytest.raises(UsageError, match="did you mean download"):
        choose(["donwload"])
    with pytest.raises(UsageError, match=r"there are serve, .*download"):
        choose(["xyz"])
