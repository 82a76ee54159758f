"""Every command of ``millrace``: one row here, one module with ``run`` behind it.

A module is imported only when its command is chosen, so what one command needs is no burden to the
others. To add a command: write ``launcher/commands/<name>.py`` with a function ``run`` and add its
row; ``--help``, the hint for typing errors and the tests follow.
"""

import difflib
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

from launcher.resolve import UsageError


class Run(Protocol):
    """What a command's module has to offer under the name ``run``."""

    def __call__(self, arguments: Sequence[str], environ: dict[str, str]) -> int:
        """Do it; the exit status.

        ``arguments`` are those behind the command's name. Raises UsageError (status 2) for what
        cannot be understood and StartupError (status 1) for what cannot be done.
        """


@dataclass(frozen=True)
class Command:
    """A row of ``--help``, and where the work is done."""

    name: str
    arguments: str
    """As the help shows them behind the name."""
    meaning: str
    module: str
    details: str = ""
    """What its own help says beside that. Empty where the help is that of all flags, or where the
    command has a parser of its own."""
    options: tuple[str, ...] = ()
    """The server's settings that mean most to it: its own help explains them."""

    def load(self) -> Run:
        """Import the module."""
        return cast(Run, importlib.import_module(self.module).run)


DEFAULT = "serve"
"""What ``millrace`` does when its first argument is a flag, or nothing."""

COMMANDS: dict[str, Command] = {
    command.name: command
    for command in (
        Command("serve", "[FLAGS]", "start the server; the word can be left out",
                "launcher.commands.serve"),
        Command("bench", "--url URL [OPTIONS]", "load a server and say how it does",
                "launcher.commands.bench"),
        Command("download", "MODEL [FLAGS]", "fetch a model from the hub and check it",
                "launcher.commands.download",
                "Goes on where an earlier try stopped, and prints the model's directory. HF_TOKEN "
                "in the environment opens gated models. The server's flags are taken, too.",
                ("revision", "lora_adapters", "huggingface_hub_cache")),
        Command("doctor", "[FLAGS] [--json]", "say what is wrong with machine, model or flags",
                "launcher.commands.doctor",
                "Starts nothing. FLAGS are the server's, as they would be given for a start. "
                "--json prints the findings as JSON. The exit status is 1 if the server would not "
                "run."),
        Command("env", "[FLAGS]", "print versions, devices and environment names",
                "launcher.commands.env",
                "For reports of errors: no secrets are printed. FLAGS are the server's; they are "
                "checked."),
        Command("replace-worker", "[OPTIONS]", "put a new worker in the place of a running one",
                "launcher.commands.replace_worker"),
        Command("print-schema", "", "print the OpenAPI document of the HTTP interface",
                "launcher.commands.print_schema",
                "It is the same for all settings: no flags are taken."),
    )
}  # fmt: skip


def choose(arguments: Sequence[str]) -> tuple[Command, list[str]]:
    """The command that is meant, and its own arguments. Raises UsageError."""
    if not arguments or arguments[0].startswith("-"):
        return COMMANDS[DEFAULT], list(arguments)
    name = arguments[0]
    if name in COMMANDS:
        return COMMANDS[name], list(arguments[1:])
    near = difflib.get_close_matches(name, COMMANDS, 1)
    if near:
        hint = f"did you mean {near[0]}?"
    elif "/" in name:
        hint = f"a model is given as --model-id {name}"
    else:
        hint = f"there are {', '.join(COMMANDS)}; millrace --help says what they do"
    raise UsageError(f"{name} is not a command: {hint}")
