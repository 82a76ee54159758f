"""For commands with flags of their own: the standard parser, its complaints made usage errors."""

import argparse
from typing import NoReturn

from launcher.resolve import UsageError


class Parser(argparse.ArgumentParser):
    """Raises UsageError instead of ending the process; flags are never guessed."""

    def __init__(self, command: str, description: str) -> None:
        super().__init__(
            prog=f"millrace {command}",
            description=description,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        """One sentence."""
        raise UsageError(f"{message}: see {self.prog} --help")


def positive(text: str) -> int:
    """A whole number from 1 up."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number above 0")
    return int(text)


def whole(text: str) -> int:
    """A whole number from 0 up."""
    try:
        return 0 if text == "0" else positive(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number from 0 up") from None


def above_zero(text: str) -> float:
    """A number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} must be a number above 0")
    return value
