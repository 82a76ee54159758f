"""What a check yields, and how findings are shown."""

import textwrap
from collections.abc import Sequence
from typing import Literal

import msgspec

Level = Literal["ok", "warning", "problem"]
_WIDTH = 100


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at."""

    subject: str
    level: Level
    """``problem``: the server would not start, or not work. ``warning``: worth knowing."""
    text: str
    """A sentence; of problems and warnings it says what to do."""


def sentence(text: str) -> str:
    """With its end."""
    return text if text.endswith(("?", ".", ":")) else f"{text}."


def counted(number: int, noun: str) -> str:
    """Such as 1 core, 2 cores."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def ok(subject: str, text: str) -> Finding:
    """As it should be."""
    return Finding(subject, "ok", sentence(text))


def warning(subject: str, text: str) -> Finding:
    """The server runs; somebody may wonder."""
    return Finding(subject, "warning", sentence(text))


def problem(subject: str, text: str) -> Finding:
    """The server does not run like this."""
    return Finding(subject, "problem", sentence(text))


def shown(findings: Sequence[Finding]) -> str:
    """For people: a line or two each, and the count at the end."""
    lines = []
    for finding in findings:
        head = f"{finding.level:<8} {finding.subject:<12} "
        lines.append(textwrap.fill(
            finding.text, _WIDTH, initial_indent=head, subsequent_indent=" " * len(head),
            break_on_hyphens=False, break_long_words=False,
        ))  # fmt: skip
    problems = sum(finding.level == "problem" for finding in findings)
    warnings = sum(finding.level == "warning" for finding in findings)
    lines.append(f"{counted(problems, 'problem')}, {counted(warnings, 'warning')}")
    return "\n".join(lines)


def as_json(findings: Sequence[Finding]) -> str:
    """For programs."""
    healthy = all(finding.level != "problem" for finding in findings)
    return msgspec.json.encode({"ok": healthy, "findings": findings}).decode()
