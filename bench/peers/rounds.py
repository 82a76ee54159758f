"""Ours and one peer in turns: row by row, round after round, both running all the time.

Owns the order. What is found is written after every round, so that a call that is cut loses one
round at most, and the next goes on from there.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from bench.load import Work
from bench.machine import busy_cores
from bench.peers import registry, rows
from bench.peers.contenders import Contender
from bench.peers.registry import Peer, Places
from bench.peers.results import OURS, Results

Say = Callable[[str], None]


def prompt_counter(model: Path) -> Callable[[list[str]], int]:
    """Counts the tokens of prompts: by our tokenizer for everybody, for all have the same."""
    tokenizer: Any = Tokenizer.from_file(str(model / "tokenizer.json"))
    return lambda prompts: sum(len(found.ids) for found in tokenizer.encode_batch(prompts))


def compare(peer: Peer, places: Places, results: Results, *, rounds: int, say: Say) -> None:
    """Rounds with this peer until there are so many. Raises ContenderError."""
    done = results.rounds.setdefault(peer.name, [])
    if len(done) >= rounds:
        return
    peer.prepare(places)
    count = prompt_counter(places.model)
    with registry.ours(places) as mine, peer.make(places) as other:
        for work in rows.warm_up():
            for contender in (mine, other):
                contender.run(work)
        idle = busy_cores()
        say(f"{peer.name}: ready after {other.start_s} s; {idle} cores busy while both idle")
        _describe(results, OURS, mine, "Millrace over HTTP")
        _describe(results, peer.name, other, peer.describes, idle_cores=idle)
        while len(done) < rounds:
            works = rows.works(len(done), sustained=peer.sustained)
            done.append(_round(works, mine, other, count))
            results.write()
            say(f"{peer.name}: round {len(done)} of {rounds}: {_summary(done[-1])}")


def _round(
    works: Mapping[str, Work], mine: Contender, other: Contender, count: Callable[[list[str]], int]
) -> dict[str, dict[str, Any]]:
    """Each row: ours while the peer is stopped, then the peer: ours waits at no cost."""
    found: dict[str, dict[str, Any]] = {OURS: {}, other.name: {}}
    for key, work in works.items():
        with other.stopped():
            figures = {OURS: mine.run(work)}
        figures[other.name] = other.run(work)
        for name, seen in figures.items():
            value = rows.value(key, work, seen, count)
            found[name][key] = {"value": value, "figures": seen}
    return found


def _describe(results: Results, name: str, contender: Contender, how: str, **more: Any) -> None:
    results.contenders[name] = {
        "how": how,
        "version": contender.version,
        "start_s": contender.start_s,
        **more,
    }


def _summary(found: dict[str, dict[str, Any]]) -> str:
    sides = list(found.values())
    return ", ".join(
        f"{row.title} {' / '.join(str(side[row.key]['value']) for side in sides)}"
        for row in rows.ROWS
        if row.key in sides[0]
    )
