"""The parts of the scheduler, put together once at start.

Nothing is decided here. Order of construction is the order of dependence.
"""

from collections.abc import Callable

from common.settings import Settings
from scheduler.adapters import AdaptersInUse
from scheduler.admission import Admission
from scheduler.endings import Endings
from scheduler.frontends import Frontends
from scheduler.gauges import Gauges
from scheduler.housekeeping import Housekeeping
from scheduler.intake import Intake
from scheduler.mail import Mail
from scheduler.metrics import Metrics
from scheduler.planner import Planner
from scheduler.processes import Processes
from scheduler.queue import Queue
from scheduler.recovery import Recovery
from scheduler.replicas import Replicas, most_leased
from scheduler.reports import Reports
from scheduler.requests import Requests
from scheduler.retirement import Retirements
from scheduler.status import Standing
from scheduler.streams import Streams
from scheduler.throughput import Throughput
from scheduler.tracing import SequenceTracer
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
        tracer: SequenceTracer | None = None,
        pulse: Callable[[], None] = lambda: None,
    ) -> None:
        """``processes`` are those of workers; ``tracer`` sends spans, if they are wanted.

        ``pulse`` is called once a second, as a sign of life.
        """
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
        )
        self.standing = Standing(epoch, self.queue, self.replicas)
        throughput = Throughput(now)
        self.streams = Streams(
            self.requests, settings.sse_resume_grace, settings.sse_resume_streams, clock
        )
        endings = Endings(
            self.requests,
            self.queue,
            self.replicas,
            self.streams,
            self.frontend_mail,
            metrics,
            tracer,
        )
        recovery = Recovery(
            self.requests, self.queue, self.replicas, self.frontend_mail, endings, metrics
        )
        admission = Admission(settings)
        retirements = Retirements(self.replicas, recovery, self.frontend_mail)
        self.planner = Planner(
            admission,
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
            Reports(endings, recovery, self.frontend_mail, metrics),
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
            pulse,
        )
        Gauges(
            admission,
            self.requests,
            self.queue,
            self.replicas,
            self.frontends,
            self.streams,
            metrics,
            clock,
            AdaptersInUse(settings.adapters, self.queue, self.replicas),
        )
