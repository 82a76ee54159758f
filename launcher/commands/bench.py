"""``millrace bench``: loads a server and says how it does. Exit status 1 if any request failed."""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import gevent
import msgspec

from common.errors import StartupError
from launcher.bench.client import Target
from launcher.bench.figures import detailed
from launcher.bench.generator import Closed, Open
from launcher.bench.probe import model_of
from launcher.bench.protocols import PROTOCOLS, Asking
from launcher.bench.report import charts, table
from launcher.bench.scenarios import SCENARIOS
from launcher.bench.session import Plan, Result, measure
from launcher.commands.own_flags import Parser, above_zero, positive, whole
from launcher.resolve import UsageError
from launcher.start import raise_file_limit

_SWEEP_CONCURRENCY = 128
_MODEL_LIMIT_S = 15.0

T = TypeVar("T")


def run(arguments: Sequence[str], environ: dict[str, str]) -> int:
    """Measure, print, write; the exit status."""
    options = _parser().parse_args(arguments)
    for path in (options.output, options.plot):
        if path is not None and not path.parent.is_dir():
            raise StartupError(f"{path} cannot be written: there is no directory {path.parent}")
    plan = _plan(options, environ)
    raise_file_limit()
    gevent.get_hub().exception_stream = None  # joining raises errors; signals are no errors
    results, lines = [], []
    for result in measure(plan, _say):
        results.append(result)
        lines.append(_line(result, options))
        print(lines[-1] if options.json else table(result), flush=True)
        if options.output is not None:  # each time: the next run may be interrupted
            _write(options.output, "\n".join([*lines, ""]))
    if options.plot is not None:
        _write(options.plot, charts(f"{plan.asking.model} at {plan.target.url}", results))
    return _judge(results)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _judge(results: Sequence[Result]) -> int:
    failed = sum(result.fields["failed"] for result in results)
    total = sum(result.fields["num_prompts"] for result in results)
    if failed:
        first = next(text for result in results for text in result.fields["failures"])
        _say(f"millrace: {failed} of {total} requests failed, the most frequent reason: {first}")
    elif not total:
        _say("millrace: no request was sent in that time: give a longer --duration")
    return 1 if failed or not total else 0


def _line(result: Result, options: argparse.Namespace) -> str:
    """One result as one line of JSON."""
    fields: dict[str, Any] = {"date": time.strftime("%Y%m%d-%H%M%S"), **result.fields}
    if options.detailed:
        fields |= detailed(result.run)
    return msgspec.json.encode(fields).decode()


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        raise StartupError(f"{path} cannot be written: {error.strerror}") from None


def _plan(options: argparse.Namespace, environ: dict[str, str]) -> Plan:
    key = options.api_key or environ.get("API_KEY", "").split(",")[0].strip()
    headers = {"authorization": f"Bearer {key}"} if key else {}
    target = Target(options.url, headers, options.timeout)
    target.check()
    if not key.isascii() or not key.isprintable():
        raise UsageError("--api-key: the value must be printable ASCII")
    asked = Target(options.url, headers, min(options.timeout, _MODEL_LIMIT_S))
    model = options.model or model_of(asked)
    loads: tuple[Closed | Open, ...] = tuple(map(Closed, options.concurrency or ()))
    loads += tuple(Open(rate, options.seed) for rate in options.rate or ())
    default = _SWEEP_CONCURRENCY if options.sweep else 8
    return Plan(
        target,
        PROTOCOLS[options.api],
        Asking(model, ignore_eos=options.ignore_eos),
        tuple(
            SCENARIOS[name].adapted(
                options.prompt_tokens, options.output_tokens, options.prefix_tokens
            )
            for name in options.scenario
        ),
        loads or (Closed(default),),
        sweep=options.sweep,
        count=options.num,
        duration_s=options.duration,
        warmup=options.warmup,
        seed=options.seed,
    )


def _several(one: Callable[[str], T]) -> Callable[[str], list[T]]:
    def parse(text: str) -> list[T]:
        return [one(part.strip()) for part in text.split(",")]

    return parse


def _scenario(text: str) -> str:
    if text not in SCENARIOS:
        raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(SCENARIOS)}")
    return text


def _parser() -> Parser:
    lines = "\n".join(f"  {name:<15} {found.meaning}" for name, found in SCENARIOS.items())
    parser = Parser(
        "bench", "Load a server with streams and say how it does.\n\nscenarios:\n" + lines
    )
    add = parser.add_argument
    add("--url", default="http://127.0.0.1:3000", help="of any server [http://127.0.0.1:3000]")
    add("--api", choices=list(PROTOCOLS), default="chat", help="how to ask [chat]")
    add("--model", help="name in the requests [what the server lists]")
    add("--api-key", help="bearer token [the first of API_KEY in the environment]")
    add("--scenario", type=_several(_scenario), default=["fixed"], metavar="NAME[,NAME]",
        help="what to ask [fixed]")  # fmt: skip
    load = parser.add_mutually_exclusive_group()
    load.add_argument("--concurrency", type=_several(positive), metavar="N[,N]",
                      help="closed loop: requests at once [8]")  # fmt: skip
    load.add_argument("--rate", type=_several(above_zero), metavar="X[,X]",
                      help="open loop: arrivals per second, a Poisson process")  # fmt: skip
    load.add_argument("--sweep", type=positive, default=0, metavar="N", help="128 at once, then "
                      "N rates up to the throughput that was reached")  # fmt: skip
    add("--num", type=positive, default=1000, metavar="N", help="most requests of a run [1000]")
    add("--duration", type=above_zero, default=60.0, metavar="S", help="seconds after which a run "
        "sends nothing new; what runs is waited for [60]")  # fmt: skip
    add("--timeout", type=above_zero, default=600.0, metavar="S",
        help="seconds after which a request has failed [600]")  # fmt: skip
    add("--warmup", type=whole, default=2, metavar="N",
        help="requests that do not count, before each scenario [2]")  # fmt: skip
    add("--prompt-tokens", type=positive, metavar="N", help="instead of the scenario's")
    add("--output-tokens", type=positive, metavar="N", help="instead of the scenario's")
    add("--prefix-tokens", type=positive, metavar="N", help="length of a beginning that requests "
        "have in common")  # fmt: skip
    add("--no-ignore-eos", dest="ignore_eos", action="store_false", help="let answers end by "
        "themselves; on the tgi interface they always do")  # fmt: skip
    add("--seed", type=int, default=0, help="of prompts and arrivals [0]")
    add("--json", action="store_true", help="print JSON lines instead of tables")
    add("--output", type=Path, metavar="FILE", help="write JSON lines, one per run, with the names "
        "of vllm bench serve")  # fmt: skip
    add("--detailed", action="store_true", help="with every request's own values in the JSON")
    add("--plot", type=Path, metavar="FILE.svg", help="draw the results")
    return parser
