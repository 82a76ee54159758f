"""Workers replaced on purpose, under load: nobody notices more than a pause."""

from pathlib import Path

import pytest

from launcher.commands.replace_worker import run
from tests.chaos.conftest import Survived
from tests.chaos.kinds import KINDS
from tests.chaos.scene import scene
from tests.chaos.talk import Talk, together
from tests.processes import command_line


@pytest.mark.parametrize(("replicas", "shards"), [(1, 1), (2, 1), (1, 2)])
def test_a_rolling_restart_of_workers(
    replicas: int, shards: int, survived: Survived, tmp_path: Path
) -> None:
    directory = tmp_path / "run"
    flags = ["--runtime-dir", str(directory)]
    if shards > 1:
        flags += ["--num-shard", str(shards)]
    with scene(*flags, replicas=replicas) as house:
        old = house.server.pids("-m worker")
        assert len(old) == replicas * shards

        def strike(talks: list[Talk]) -> None:
            for replica in range(replicas):
                arguments = ["--replica", str(replica), "--runtime-dir", str(directory)]
                assert run(arguments, {}) == 0

        outcomes = together(house.server, KINDS, strike)
        house.settle()
        new = house.server.pids("-m worker")
        assert len(new) == len(old)
        assert not set(old) & set(new), [command_line(pid) for pid in new]
        assert house.metric("millrace_replicas_lost_total") == 0
        assert house.metric("millrace_recovered_sequences_total") == 0
    group = f", {shards} shards" if shards > 1 else ""
    survived(f"replace-worker, {replicas} of {replicas} replicas{group}", outcomes)
