"""How many KV blocks a worker has room for.

Runs in the worker, once, before the cache is made. Reads what the machine and its control group
leave; decides by the settings. Knows nothing of the model but the size of a block.
"""

import contextlib
from pathlib import Path

from common.errors import StartupError
from common.messages import BLOCK_TOKENS
from common.settings import Settings

CPU_FRACTION = 0.5
"""Part of the available memory that all replicas on a CPU take for keys and values: the rest is
for activations, the other processes, and replicas that are still loading their weights."""
CAP_SLACK = 1.25
"""Room beyond what all sequences that may run together can fill, for cached prefixes."""
_MEMINFO_AVAILABLE = "MemAvailable:"
_RESET_PEAK = "5"
"""What proc(5) asks to be written."""


def blocks_for(settings: Settings, bytes_per_block: int, budget_bytes: int) -> int:
    """KV blocks of a replica that may use ``budget_bytes``, block 0 (padding) included.

    ``max_batch_total_tokens`` decides if it is given. Raises StartupError if a request of
    ``max_total_tokens`` would not fit.
    """
    needed = _blocks(settings.max_total_tokens)
    given = settings.max_batch_total_tokens
    if given is not None:
        if given < settings.max_total_tokens:
            raise StartupError(
                f"--max-batch-total-tokens ({given}) is less than --max-total-tokens"
                f" ({settings.max_total_tokens}): raise the first or lower the second"
            )
        return _blocks(given) + 1
    together = settings.max_batch_size or settings.max_concurrent_requests
    most = int(together * needed * CAP_SLACK)
    fitting = budget_bytes // bytes_per_block - 1
    if fitting < needed:
        raise StartupError(
            f"memory for {max(0, fitting) * BLOCK_TOKENS} tokens of keys and values is left, less"
            f" than --max-total-tokens ({settings.max_total_tokens}): lower that, or what the"
            " largest step computes (--max-batch-prefill-tokens, --max-batch-size), use a smaller"
            " model, or give more memory"
        )
    return max(needed, min(most, fitting)) + 1


def no_room(blocks: int) -> StartupError:
    """What to say where so many blocks could not be had; all shards say the same."""
    return StartupError(
        f"no memory for {max(0, blocks - 1) * BLOCK_TOKENS} tokens of keys and values beside the"
        " model: lower --max-batch-total-tokens or --max-batch-prefill-tokens"
    )


def cpu_budget_bytes(settings: Settings, available_bytes: int, activation_bytes: int) -> int:
    """What one worker process of a CPU may take, beside the activations of its largest step."""
    share = available_bytes // (settings.num_replicas * settings.num_shard)
    return max(0, min(int(share * CPU_FRACTION), share - activation_bytes))


class Growth:
    """By how much this process's memory has grown, at its peak, since this was made."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._status = proc / "self" / "status"
        with contextlib.suppress(OSError):  # then the peak may be an older one: more, never less
            (proc / "self" / "clear_refs").write_text(_RESET_PEAK)
        self._before = self._read("VmRSS:")

    def peak_bytes(self) -> int:
        """Of resident memory; 0 where the kernel does not tell."""
        return max(0, self._read("VmHWM:") - self._before)

    def _read(self, key: str) -> int:
        try:
            lines = self._status.read_text().splitlines()
        except OSError:
            return 0
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(key)), 0)


def available_bytes(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Memory that may still be taken: the least of the machine's and its control groups'."""
    limits = [_machine(proc), *_control_groups(proc, groups)]
    return max(0, min(limits))


def _machine(proc: Path) -> int:
    for line in (proc / "meminfo").read_text().splitlines():
        if line.startswith(_MEMINFO_AVAILABLE):
            return int(line.split()[1]) * 1024
    raise StartupError(
        "the kernel does not say how much memory is available: set --max-batch-total-tokens"
    )


def _control_groups(proc: Path, groups: Path) -> list[int]:
    """What each limit leaves, of version 2 (our group and those above it) and of version 1."""
    left = []
    for group in _own_groups(proc, groups):
        limit, used = _number(group / "memory.max"), _number(group / "memory.current")
        if limit is not None and used is not None:
            left.append(limit - used + _reclaimable(group / "memory.stat", "inactive_file"))
    old = groups / "memory"
    limit, used = _number(old / "memory.limit_in_bytes"), _number(old / "memory.usage_in_bytes")
    if limit is not None and used is not None:
        left.append(limit - used + _reclaimable(old / "memory.stat", "total_inactive_file"))
    return left


def _own_groups(proc: Path, groups: Path) -> list[Path]:
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return []
    path = next((line[3:] for line in lines if line.startswith("0::")), "/")
    inside = groups / path.strip("/")
    return [group for group in (inside, *inside.parents) if group.is_relative_to(groups)]


def _number(path: Path) -> int | None:
    """A file that holds one number; None if there is none, or no limit."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # "max" is no limit
        return None


def _reclaimable(path: Path, key: str) -> int:
    """Cached file pages, which count as used but would make room."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.split()[0] == key), 0)


def _blocks(tokens: int) -> int:
    return -(-tokens // BLOCK_TOKENS)
