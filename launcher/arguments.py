"""The server's flags on a command line, taken apart by the table of options. Knows no meanings."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field

from common.option import Option
from common.options import OPTIONS
from launcher.resolve import Given, UsageError


@dataclass
class CommandLine:
    """What was asked for."""

    given: list[Given] = field(default_factory=list)
    help: bool = False
    version: bool = False

    @property
    def secrets(self) -> list[Given]:
        """Secrets that stand on the command line, for all users of the machine to see."""
        return [item for item in self.given if OPTIONS[item.option].secret]


def parse_arguments(arguments: Sequence[str]) -> CommandLine:
    """Flags (``--name value``, ``--name=value``, ``-p 80``) and switches.

    Raises UsageError with the nearest real name.
    """
    line = CommandLine()
    waiting = list(arguments)
    flags = _flags()
    while waiting:
        word = waiting.pop(0)
        if word in ("-h", "--help"):
            line.help = True
        elif word in ("-V", "--version"):
            line.version = True
        else:
            line.given.append(_flag(word, waiting, flags, line.given))
    return line


def _flags() -> dict[str, Option]:
    flags = {flag: option for option in OPTIONS.values() for flag in option.flags}
    for option in OPTIONS.values():
        if option.negation:
            flags[f"--no-{option.flags[0].removeprefix('--')}"] = option
    return flags


def _flag(word: str, waiting: list[str], flags: dict[str, Option], given: list[Given]) -> Given:
    flag, equals, text = word.partition("=")
    if flag not in flags and f"-{flag}" in flags:  # before -port becomes -p ort
        raise UsageError(f"{flag} is not a flag of this server; did you mean -{flag}?")
    if flag not in flags and len(word) > 2 and word[:2] in flags and word[1] != "-":
        flag, equals, text = word[:2], "=", word[2:]  # -p80
    option = flags.get(flag)
    if option is None:
        if not word.startswith("-"):
            hint = "see --help"
            if "/" in word:
                hint = "a model is given as --model-id"
            elif given and OPTIONS[given[-1].option].is_switch:
                hint = f"{given[-1].flag} takes no value"
            raise UsageError(f"{word!r} belongs to no flag: {hint}")
        near = difflib.get_close_matches(flag, flags, 1)
        hint = f"; did you mean {near[0]}?" if near else ": see --help"
        raise UsageError(f"{flag} is not a flag of this server{hint}")
    if flag.startswith("--no-"):
        if equals:
            raise UsageError(f"{flag} takes no value")
        return Given(option.name, flag, "false")
    if option.is_switch:
        return Given(option.name, flag, text if equals else "true")
    if equals:
        return Given(option.name, flag, text)
    if not waiting or waiting[0].startswith("--"):
        raise UsageError(f"{flag} needs a value ({option.kind.word})")
    return Given(option.name, flag, waiting.pop(0))
