"""The series that are read from their owners at every scrape.

A scrape may come in a thread of its own: everything here only reads, and takes copies of what may
change meanwhile. Owns why the waiting wait, in words. Knows no sockets.
"""

import time
from collections.abc import Callable, Iterator

from common.messages import BLOCK_TOKENS
from scheduler.adapters import LABELS, AdaptersInUse
from scheduler.admission import HOLDS, Admission
from scheduler.frontends import Frontends
from scheduler.metrics import Metrics
from scheduler.queue import Queue
from scheduler.replicas import Replica, Replicas
from scheduler.requests import Requests
from scheduler.series import Labelled
from scheduler.streams import Streams


class Gauges:
    """Declares them all; nothing else needs to hold it."""

    def __init__(
        self,
        admission: Admission,
        requests: Requests,
        queue: Queue,
        replicas: Replicas,
        frontends: Frontends,
        streams: Streams,
        metrics: Metrics,
        clock: Callable[[], float],
        adapters: AdaptersInUse,
    ) -> None:
        self._admission = admission
        self._requests = requests
        self._queue = queue
        self._replicas = replicas
        self._frontends = frontends
        self._streams = streams
        self._stalls = metrics.stalls
        self._watched = metrics.catalogue.watched
        self._clock = clock
        self._adapters = adapters
        self._of_tgi()
        self._of_sequences()
        self._of_replicas()
        self._of_blocks()

    def _one(self, name: str, meaning: str, value: Callable[[], float]) -> None:
        self._watched(name, meaning, (), lambda: {(): value()})

    def _of_tgi(self) -> None:
        replicas = self._replicas
        self._one("tgi_queue_size", "Sequences that wait", lambda: len(self._queue))
        self._one("tgi_batch_current_size", "Sequences that run", lambda: replicas.running)
        self._one(
            "tgi_batch_current_max_tokens",
            "Prompt and possible output of all running sequences, in tokens",
            lambda: sum(replica.most_tokens for replica in replicas),
        )
        self._one(
            "tgi_batch_max_total_tokens",
            "KV room of all usable replicas, in tokens",
            lambda: sum(replica.total_tokens for replica in replicas if replica.usable),
        )

    def _of_sequences(self) -> None:
        self._one(
            "millrace_live_sequences",
            "Sequences that count against max_concurrent_requests",
            lambda: self._requests.live,
        )
        self._one(
            "millrace_kept_streams",
            "Streams without a client that may be taken up again",
            lambda: self._streams.waiting,
        )
        self._watched(
            "millrace_running_sequences",
            "Sequences that run, by replica",
            ("replica",),
            lambda: {(str(r.number),): len(r.running) for r in self._replicas},
        )
        self._watched(
            "millrace_waiting_sequences",
            f"Sequences that wait, by what the first of them waits for: {', '.join(HOLDS)}",
            ("reason",),
            self._waiting,
        )
        self._one(
            "millrace_worst_stall_seconds",
            "Longest pause between two tokens of a sequence within the last minute, those that "
            "last included",
            self._worst_stall,
        )

    def _of_replicas(self) -> None:
        self._one("millrace_replicas", "Replicas that are known", lambda: len(self._replicas))
        self._one(
            "millrace_replicas_ready", "Replicas that are ready", lambda: self._replicas.ready
        )
        self._one("millrace_frontends", "Front ends that are known", lambda: len(self._frontends))
        started = time.time()
        self._one(
            "millrace_start_time_seconds",
            "When the scheduler was started, in seconds since the epoch; counters begin then",
            lambda: started,
        )
        self._watched(
            "millrace_lora_requests_info",
            "Adapters: how many there are, which run, which wait, and when a scrape first saw "
            "that, in seconds since the epoch",
            LABELS,
            self._adapters.series,
        )

    def _of_blocks(self) -> None:
        self._watched(
            "millrace_kv_blocks",
            "KV blocks by replica and state: free, cached, used",
            ("replica", "state"),
            self._blocks,
        )
        self._one(
            "millrace_kv_cache_usage",
            "Used share of all KV blocks, 0 to 1; cached ones that nobody uses do not count",
            self._usage,
        )
        self._watched(
            "millrace_cache_config_info",
            "Tokens in a KV block, and blocks of all usable replicas; always 1",
            ("block_size", "num_gpu_blocks"),
            lambda: {(str(BLOCK_TOKENS), str(self._total_blocks())): 1.0},
        )

    # --- what needs more than a look ------------------------------------------------------------

    def _waiting(self) -> Labelled:
        count = len(self._queue)
        hold = self._admission.hold(self._queue, self._replicas) if count else ""
        return {(reason,): count if reason == hold else 0 for reason in HOLDS}

    def _blocks(self) -> Labelled:
        found: dict[tuple[str, ...], float] = {}
        for replica in self._replicas:
            pool, number = replica.leases.pool, str(replica.number)
            found[number, "free"] = pool.free
            found[number, "cached"] = pool.cached
            found[number, "used"] = pool.leased
        return found

    def _usable(self) -> Iterator[Replica]:
        return (replica for replica in self._replicas if replica.usable)

    def _total_blocks(self) -> int:
        return sum(replica.total_blocks for replica in self._usable())

    def _usage(self) -> float:
        return sum(r.leases.pool.leased for r in self._usable()) / max(self._total_blocks(), 1)

    def _worst_stall(self) -> float:
        now = self._clock()
        lasting = [r.silence_s(now) for r in self._usable() if r.running]
        lasting += [now - since for since in self._requests.interrupted()]
        return max([self._stalls.worst(now), *lasting])
