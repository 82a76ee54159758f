"""The parts of the scheduler, put together once at start.

Nothing is decided here. Order of construction is the order of dependence.
"""

from collections.abc import Callable

from common.settings import Settings
from scheduler.admission import Admission
from scheduler.endings import Endings
from scheduler.frontends import Frontends
from scheduler.housekeeping import Housekeeping
from scheduler.intake import Intake
from scheduler.mail import Mail
from scheduler.metrics import Metrics
from scheduler.pace import WorstStall
from scheduler.planner import Planner
from scheduler.processes import Processes
from scheduler.queue import Queue
from scheduler.recovery import Recovery
from scheduler.replicas import Replica, Replicas, most_leased
from scheduler.reports import Reports
from scheduler.requests import Requests
from scheduler.retirement import Retirements
from scheduler.status import Standing
from scheduler.streams import Streams
from scheduler.throughput import Throughput
from scheduler.workers import Workers


class Parts:
    """Everything but the sockets and the loop."""

    def __init__(
        self,
        settings: Settings,
        epoch: int,
        metrics: Metrics,
        processes: Processes,
        frontend_processes: Processes,
        clock: Callable[[], float],
    ) -> None:
        """``processes`` are those of workers."""
        now = clock()
        self.epoch = epoch
        self.metrics = metrics
        self.frontend_mail = Mail()
        self.worker_mail = Mail()
        self.requests = Requests()
        self.queue = Queue()
        self.frontends = Frontends()
        self.replicas = Replicas(
            settings.num_replicas,
            caching=settings.prefix_caching,
            hang_s=settings.hang_timeout,
            step_tokens=settings.max_batch_prefill_tokens,
            max_stall_s=settings.max_stall_ms / 1000,
            now=now,
            added=self._watch_replica,
        )
        self.stalls = WorstStall(now)
        self.standing = Standing(epoch, self.queue, self.replicas)
        throughput = Throughput(now)
        self.streams = Streams(
            self.requests, settings.sse_resume_grace, settings.sse_resume_streams, clock
        )
        endings = Endings(
            self.requests, self.queue, self.replicas, self.streams, self.frontend_mail, metrics
        )
        recovery = Recovery(
            self.requests, self.queue, self.replicas, self.frontend_mail, endings, metrics
        )
        retirements = Retirements(self.replicas, recovery, self.frontend_mail)
        self.planner = Planner(
            Admission(settings),
            self.requests,
            self.queue,
            self.replicas,
            endings,
            recovery,
            throughput,
            metrics,
            clock,
        )
        self.intake = Intake(
            settings.max_concurrent_requests,
            self.requests,
            self.queue,
            self.frontends,
            endings,
            recovery,
            frontend_processes,
            self.streams,
            retirements,
            self.standing,
            throughput,
            self.frontend_mail,
            metrics,
        )
        self.workers = Workers(
            epoch,
            most_leased(settings.max_batch_total_tokens),
            self.replicas,
            recovery,
            Reports(endings, recovery, self.stalls, self.frontend_mail, metrics),
            processes,
            self.worker_mail,
            metrics,
        )
        self.housekeeping = Housekeeping(
            self.requests,
            self.queue,
            self.replicas,
            self.frontends,
            self.intake,
            endings,
            recovery,
            self.streams,
            retirements,
            self.workers,
            self.standing,
            throughput,
            self.frontend_mail,
            metrics,
        )
        self._watch(clock)

    def _watch(self, clock: Callable[[], float]) -> None:
        """Gauges read their owners at every scrape, maybe from another thread."""
        watch = self.metrics.watch
        replicas = self.replicas
        watch("tgi_queue_size", "Sequences that wait", lambda: len(self.queue))
        watch("tgi_batch_current_size", "Sequences that run", lambda: replicas.running)
        watch(
            "tgi_batch_current_max_tokens",
            "Prompt and possible output of all running sequences, in tokens",
            lambda: sum(replica.most_tokens for replica in replicas),
        )
        watch(
            "tgi_batch_max_total_tokens",
            "KV room of all usable replicas, in tokens",
            lambda: sum(replica.total_tokens for replica in replicas if replica.usable),
        )
        watch(
            "millrace_live_sequences",
            "Sequences that count against max_concurrent_requests",
            lambda: self.requests.live,
        )
        watch(
            "millrace_worst_stall_seconds",
            "Longest step that running streams have waited for, in the last minutes",
            lambda: self.stalls.seconds(clock()),
        )
        watch(
            "millrace_kept_streams",
            "Streams without a client that may be taken up again",
            lambda: self.streams.waiting,
        )
        watch("millrace_replicas", "Replicas that are known", lambda: len(replicas))
        watch("millrace_replicas_ready", "Replicas that are ready", lambda: replicas.ready)
        watch("millrace_frontends", "Front ends that are known", lambda: len(self.frontends))

    def _watch_replica(self, replica: Replica) -> None:
        watch = self.metrics.watch_blocks
        watch(replica.number, "free", lambda: replica.leases.pool.free)
        watch(replica.number, "cached", lambda: replica.leases.pool.cached)
        watch(replica.number, "used", lambda: replica.leases.pool.leased)
