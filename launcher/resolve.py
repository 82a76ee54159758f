"""Flags and environment into values, each with the place that it came from.

Pure: argument texts and an environment go in, a ``Resolution`` comes out. Derived values are
``launcher/limits.py``'s business.
"""

import difflib
import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from common.errors import StartupError
from common.option import AUTO, LIST, Option
from common.options import HUB_TOKENS, OPTIONS

DEFAULT = "default"

_SERVICE_NAME = re.compile(
    r"TGI_(?:\w+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?"
    r"|PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:ADDR|PORT|PROTO))?)"
)
_SERVICE_VALUE = re.compile(r"(?:tcp|udp|sctp)://")


class UsageError(StartupError):
    """A flag or a value that cannot be understood; exit status 2."""


@dataclass(frozen=True)
class Given:
    """One flag as it stood on the command line; ``text`` is "true" for a switch."""

    option: str
    flag: str
    text: str


@dataclass(frozen=True)
class Note:
    """Something the user should read in the log."""

    level: Literal["info", "warning"]
    text: str


@dataclass(frozen=True)
class Value:
    """A resolved value and where it came from, in words."""

    value: Any
    source: str = DEFAULT

    @property
    def explicit(self) -> bool:
        """Whether the user chose it (``auto`` is the opposite of a choice)."""
        return self.source != DEFAULT and not self.derived and self.value != AUTO

    @property
    def derived(self) -> bool:
        """Whether it was computed."""
        return self.source.startswith("derived")


@dataclass
class Resolution:
    """Every option's value; grows notes while it is worked on."""

    values: dict[str, Value]
    notes: list[Note] = field(default_factory=list)

    def __getitem__(self, name: str) -> Any:
        return self.values[name].value

    def derive(self, name: str, value: Any, reason: str) -> None:
        """Put a computed value in the place of ``auto`` or of a default."""
        self.values[name] = Value(value, f"derived: {reason}")

    def note(self, text: str, level: Literal["info", "warning"] = "info") -> None:
        """Add a line to the log."""
        self.notes.append(Note(level, text))

    def named(self, name: str) -> str:
        """How the user would call this value: the flag or variable it came from, or the flag."""
        value = self.values[name]
        if value.explicit:
            return value.source.removeprefix("flag ").removeprefix("environment ")
        return OPTIONS[name].flags[0]


def resolve(given: Iterable[Given], environ: Mapping[str, str]) -> Resolution:
    """Flag, then ``TGI_<NAME>``, then bare name, then default, for every option.

    Raises UsageError for what cannot be understood and StartupError for what is not there yet.
    """
    flags: dict[str, list[Given]] = {}
    for item in given:
        flags.setdefault(item.option, []).append(item)
    resolution = Resolution({})
    links = service_links(environ)
    if links:
        resolution.note(f"skipped, because they are Kubernetes service links: {', '.join(links)}")
    environ = {name: text for name, text in environ.items() if name not in links}
    for option in OPTIONS.values():
        value = _from_flags(option, flags.get(option.name, []))
        if value is None:
            value = _from_environment(option, environ, resolution)
        resolution.values[option.name] = value or Value(option.default)
    _hostname(resolution)
    for option in OPTIONS.values():
        _heed_status(option, resolution)
    known = _known_names()
    for name in sorted(environ):
        if name.startswith("TGI_") and name not in known:
            near = difflib.get_close_matches(name, sorted(known), 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            resolution.note(f"{name} is not a setting of this server{hint}", "warning")
    return resolution


def _known_names() -> set[str]:
    return {name for option in OPTIONS.values() for name in option.environment_names}


def service_links(environ: Mapping[str, str]) -> list[str]:
    """Names that Kubernetes made for a Service called like us, and that are no settings.

    A Service ``tgi`` injects ``TGI_PORT=tcp://…`` and ``TGI_SERVICE_HOST``; one called
    ``prometheus`` injects ``PROMETHEUS_PORT=tcp://…``.
    """
    known = _known_names()
    return sorted(
        name
        for name, text in environ.items()
        if (name in known or name.startswith("TGI_"))
        and (_SERVICE_VALUE.match(text) or (name not in known and _SERVICE_NAME.fullmatch(name)))
    )


def _from_flags(option: Option, given: list[Given]) -> Value | None:
    if not given:
        return None
    if option.legacy and set(option.flags[:2]) <= {item.flag for item in given}:
        names = " and ".join(option.flags[:2])
        raise UsageError(f"{names} are two names of one setting: give one of them")
    last = given[-1]
    if option.is_list:
        values = [value for item in given for value in parse(option, item.text, item.flag)]
        return Value(values, f"flag {last.flag}")
    return Value(parse(option, last.text, last.flag), f"flag {last.flag}")


def _from_environment(
    option: Option, environ: Mapping[str, str], resolution: Resolution
) -> Value | None:
    chosen: Value | None = None
    for name in option.environment_names:
        text = environ.get(name, "").strip()
        if not text:
            continue
        try:
            value = Value(parse(option, text, name), f"environment {name}")
        except UsageError:
            if not option.lenient or name.startswith("TGI_"):
                raise
            resolution.note(f"{name} is set to something else than TGI's setting: skipped")
            continue
        if chosen is None:
            chosen = value
        elif option.legacy and option.legacy.upper() in name and value.value != chosen.value:
            first = chosen.source.removeprefix("environment ")
            raise StartupError(f"{first} and {name} contradict each other: set one of them")
    return chosen


def parse(option: Option, text: str, name: str) -> Any:
    """The value of ``text``, given under ``name``. Raises UsageError."""
    if text == AUTO and option.auto:
        return AUTO
    if text == "" and option.kind is not LIST:
        raise UsageError(f"{name} is empty: give it a value or leave it out")
    if not _is_utf8(text):
        raise UsageError(_complaint(name, option, text, "is not UTF-8"))
    try:
        value = option.kind.parse(text)
    except ValueError as error:
        raise UsageError(_complaint(name, option, text, str(error))) from None
    complaint = option.check(value) if option.check else ""
    if complaint:
        raise UsageError(_complaint(name, option, text, complaint))
    return value


def _is_utf8(text: str) -> bool:
    """Other bytes of an argument or of the environment are lone surrogates here."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _shown(option: Option, text: str) -> str:
    return "the value" if option.secret else repr(text)


def _complaint(name: str, option: Option, text: str, complaint: str) -> str:
    or_auto = ", or auto" if option.auto and "auto" not in complaint else ""
    return f"{name}: {_shown(option, text)} {complaint}{or_auto}"


def _hostname(resolution: Resolution) -> None:
    """TGI's rule: what is no address means every address. ``HOSTNAME`` is a pod's name, often."""
    value = resolution.values["hostname"]
    if value.value == "localhost":
        resolution.values["hostname"] = Value("127.0.0.1", value.source)
        return
    try:
        ipaddress.ip_address(value.value)
    except ValueError:
        default = OPTIONS["hostname"].default
        by_hand = value.source != "environment HOSTNAME"
        resolution.note(
            f"{resolution.named('hostname')} is {value.value!r}, which is no IP address: "
            f"listening on {default}",
            "warning" if by_hand else "info",
        )
        resolution.derive("hostname", default, f"{value.value!r} is no IP address")


def _heed_status(option: Option, resolution: Resolution) -> None:
    value = resolution.values[option.name]
    if not value.explicit:
        return
    if option.no_effect and value.value not in option.harmless:
        text = f"{resolution.named(option.name)} has no effect: {option.no_effect}"
        resolution.note(text, "warning" if option.warns else "info")
    if option.not_yet and value.value not in option.harmless:
        named = resolution.named(option.name)
        flag = option.flags[0]
        where = flag if named == flag else f"{flag} (set as {named})"
        raise StartupError(f"{where} cannot be used: {option.not_yet}")


def hub_token(environ: Mapping[str, str]) -> str | None:
    """The token for the hub client, and for nobody else."""
    for name in HUB_TOKENS:
        if environ.get(name, "").strip():
            return environ[name].strip()
    return None
