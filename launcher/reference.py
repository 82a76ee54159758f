"""``--help`` and ``docs/settings.md``, both rendered from the table of options.

``python -m launcher.reference`` prints the page; ``make docs`` writes it.
"""

import textwrap
from typing import Any

from common.option import AUTO, Option
from common.options import OPTIONS, SECTIONS
from launcher.commands.registry import COMMANDS, DEFAULT, Command

_USAGE = """\
millrace: a text-generation server with the APIs of TGI, OpenAI and Anthropic

Usage:
{commands}

Each setting is taken from its flag, else from TGI_<NAME>, else from <NAME> in the environment,
else it has its default. Values in the environment that are empty do not count.
"""

_PAGE = """\
# Settings

*This page is made from `common/options.py` by `make docs`; a test checks that it is current.*

Each setting is taken from its flag, else from the environment, else it has its default. In the
environment the name is `TGI_` and the upper-case name of the flag with underscores; TGI's plain
name (`MODEL_ID`) counts too, after it, where the table shows it. Empty values do not count.
Switches take `true` or `false` in the environment. `millrace --dry-run` with the same flags and
environment prints what each setting becomes and where that comes from, and starts nothing;
`millrace doctor` with them says what would go wrong.

- **Names that are not ours.** An unknown `TGI_*` name is warned about, with the nearest real one.
  Kubernetes puts names like `TGI_PORT=tcp://10.0.0.1:80` into every pod when a Service is called
  `tgi`; such links are recognised by name and value and skipped. `HOSTNAME` and `ENV` are skipped
  if they hold something else than TGI's setting.
- **Limits need not be set.** If only one of `--max-input-tokens` and `--max-total-tokens` is set,
  the other gives way: a total of 512 makes the input 511 at most; an input of 4000 makes the total
  5024 (room for 1024 generated tokens). A model with a smaller context clips them; a larger one is
  used as far as they say, or as a whole with `--max-total-tokens auto --max-input-tokens auto`. The
  log says both.
- **Impossible combinations** stop the start with one sentence and exit status 1; flags and values
  that cannot be understood with exit status 2.
- **Secrets** (`API_KEY`, `HF_TOKEN`, `HUGGING_FACE_HUB_TOKEN`, `HF_API_TOKEN`) are taken out of the
  environment before any other process starts, and appear in no log. A key given as a flag is
  visible to other users of the machine until the server has replaced its own command line, a
  moment later; the environment, or a file, is the better place. No process that serves requests
  knows a key: the settings hold SHA-256 hashes, which are enough for keys that are long and random.
- **API keys** close every route but health: `/`, `/health`, `/ping`, `/v2/health/live`,
  `/v2/health/ready` and the health route of Vertex AI, read with `GET` or `HEAD`. `--open-routes`
  opens some that tell about the server. The port of `--prometheus-port` is one of its own and asks
  for no key: keep it to your own network, or switch it off with 0.
- **The hub.** `HF_ENDPOINT` names another hub; `HF_HUB_OFFLINE=1` uses only what was downloaded
  before.
"""

_TABLE_HEAD = ["", "| flag | environment | default | meaning |", "|---|---|---|---|"]


def help_text(name: str = DEFAULT) -> str:
    """What ``--help`` prints behind a command that takes the server's flags, or behind none."""
    return _command_help(COMMANDS[name]) if name != DEFAULT else _all_help()


def _command_help(command: Command) -> str:
    usage = f"Usage:\n  millrace {command.name} {command.arguments}".rstrip()
    meaning = f"{command.meaning[0].upper()}{command.meaning[1:]}. {command.details}"
    parts = [usage, "", textwrap.fill(meaning, 98)]
    if command.options:
        parts += ["", *(_help_entry(OPTIONS[name]) for name in command.options)]
    if "FLAGS" in command.arguments:
        parts += ["", f"millrace {DEFAULT} --help explains all flags of the server."]
    return "\n".join(parts)


def _all_help() -> str:
    parts = [_USAGE.format(commands="\n".join(map(_command_line, COMMANDS.values())))]
    for title, options in SECTIONS.items():
        parts.append(f"{title}:")
        parts += [_help_entry(option) for option in options if option.flag]
        parts.append("")
    parts.append("  -h, --help\n  -V, --version")
    return "\n".join(parts)


def _command_line(command: Command) -> str:
    name = f"[{command.name}]" if command.name == DEFAULT else command.name
    usage = f"  millrace {name} {command.arguments}".rstrip()
    return f"{usage:<40} {command.meaning}"


def _help_entry(option: Option) -> str:
    names = ", ".join(sorted(option.flags, key=len))
    if option.negation:
        names += f", --no-{option.flags[0].removeprefix('--')}"
    if not option.is_switch:
        names += f" {option.kind.word}"
    text = textwrap.fill(
        _meaning(option), 98, initial_indent=" " * 10, subsequent_indent=" " * 10,
        break_on_hyphens=False,
    )  # fmt: skip
    return f"  {names}\n{text}"


def _meaning(option: Option) -> str:
    text = option.meaning
    if option.not_yet:
        return f"{text} Refused: {option.not_yet}."
    if option.no_effect:
        return f"{text} No effect: {option.no_effect}."
    if option.auto:
        text += f" auto: {option.auto}."
    shown = _default(option)
    return f"{text} [{shown}]" if shown else text


def _default(option: Option) -> str:
    value: Any = option.default
    if value is None or value == [] or (option.is_switch and value is False):
        return ""
    if value is True:
        return "on"
    return str(value)


def settings_page() -> str:
    """The text of ``docs/settings.md``."""
    parts = [_PAGE]
    for title, options in SECTIONS.items():
        parts += [f"## {title}", *_TABLE_HEAD]
        parts += [_row(option) for option in options]
        parts.append("")
    return "\n".join(parts)


def _row(option: Option) -> str:
    spellings = list(option.flags)
    if option.negation:
        spellings.append(f"--no-{option.flags[0].removeprefix('--')}")
    flags = ", ".join(f"`{name}`" for name in spellings)
    names = ", ".join(f"`{name}`" for name in option.environment_names)
    meaning = option.meaning
    if option.kind.word and "|" in option.kind.word:
        words = option.kind.word.split("|")
        meaning += f" One of {', '.join(f'`{word}`' for word in words)}."
    if option.auto:
        meaning += f" `{AUTO}`: {option.auto}."
    if option.no_effect:
        meaning += f" No effect: {option.no_effect}."
    if option.not_yet:
        meaning += f" Refused: {option.not_yet}."
    default = _default(option) if not (option.no_effect or option.not_yet) else ""
    shown = f"`{default}`" if default else ""
    return f"| {flags} | {names} | {shown} | {meaning} |"


if __name__ == "__main__":
    print(settings_page(), end="")
