"""How many blocks: settings, limits and what files under /proc and /sys say."""

import pytest

from common.errors import StartupError
from common.settings import Settings
from worker.memory import Growth, available_bytes, blocks_for, cpu_budget_bytes


def settings(**changes) -> Settings:
    return Settings(model_id="m", model_dir="/m", **changes)


def test_what_was_given_decides():
    given = settings(max_total_tokens=100, max_batch_total_tokens=1000)
    assert blocks_for(given, 10**9, 0) == 63 + 1
    with pytest.raises(StartupError, match=r"--max-batch-total-tokens \(99\) is less"):
        blocks_for(settings(max_total_tokens=100, max_batch_total_tokens=99), 1, 0)


def test_memory_decides_otherwise_up_to_what_can_run_together():
    derived = settings(max_total_tokens=160, max_concurrent_requests=4)
    assert blocks_for(derived, 1000, 20_000) == 20
    assert blocks_for(derived, 1000, 10**9) == 4 * 10 * 1.25 + 1
    assert blocks_for(settings(max_total_tokens=160, max_batch_size=2), 1000, 10**9) == 26
    with pytest.raises(StartupError, match="144 tokens of keys and values is left"):
        blocks_for(derived, 1000, 10_000)
    with pytest.raises(StartupError, match="for 0 tokens"):
        blocks_for(derived, 1000, -5)


def test_replicas_share():
    assert cpu_budget_bytes(settings(num_replicas=2), 1000, 0) == 250
    assert cpu_budget_bytes(settings(num_replicas=2, num_shard=2), 1000, 0) == 125


def test_the_largest_step_keeps_its_room():
    assert cpu_budget_bytes(settings(), 1000, 400) == 500
    assert cpu_budget_bytes(settings(), 1000, 700) == 300
    assert cpu_budget_bytes(settings(), 1000, 1700) == 0


@pytest.fixture
def machine(tmp_path):
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    groups.mkdir()
    (proc / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    8000 kB\n")
    (proc / "self" / "cgroup").write_text("0::/\n")
    return proc, groups


def test_the_machine(machine):
    assert available_bytes(*machine) == 8000 * 1024


def test_control_groups_of_version_2(machine):
    proc, groups = machine
    inner = groups / "outer" / "inner"
    inner.mkdir(parents=True)
    (proc / "self" / "cgroup").write_text("0::/outer/inner\n")
    (inner / "memory.max").write_text("max\n")
    (inner / "memory.current").write_text("100\n")
    (groups / "outer" / "memory.max").write_text("5000\n")
    (groups / "outer" / "memory.current").write_text("3000\n")
    (groups / "outer" / "memory.stat").write_text("anon 2000\ninactive_file 1000\n")
    assert available_bytes(proc, groups) == 3000


def test_control_groups_of_version_1(machine):
    proc, groups = machine
    (groups / "memory").mkdir()
    (groups / "memory" / "memory.limit_in_bytes").write_text("700")
    (groups / "memory" / "memory.usage_in_bytes").write_text("900")
    assert available_bytes(proc, groups) == 0


def test_this_machine():
    assert available_bytes() > 0


def test_growth_is_measured_from_its_beginning(tmp_path):
    (tmp_path / "self").mkdir()
    status = tmp_path / "self" / "status"
    status.write_text("VmHWM:\t900 kB\nVmRSS:\t 400 kB\n")
    growth = Growth(tmp_path)
    assert (tmp_path / "self" / "clear_refs").read_text() == "5"
    status.write_text("VmHWM:\t 650 kB\nVmRSS:\t 300 kB\n")
    assert growth.peak_bytes() == 250 * 1024
    status.write_text("VmRSS:\t 300 kB\n")
    assert growth.peak_bytes() == 0
