"""The metrics: one registry, and everything that is counted.

Owned by the scheduler alone; front ends and workers report, so that there is one true count. TGI's
names, labels and buckets are API; what each number comes from is said beside it. Knows no sockets
and no records.

A step that computed any prompt token counts as ``method="prefill"``, every other one as
``"decode"``. Of a step, ``inference`` is all of it, ``forward`` the model, ``decode`` the choice of
tokens, ``filter`` their publishing.
"""

from collections import Counter as Tallied
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from common.errors import ErrorKind
from common.messages import Delivered, StepTiming, Tally
from common.settings import Settings
from scheduler.exposition import render

DURATION_BUCKETS = tuple(0.0001 * 1.5**k for k in range(1, 36))
SKIPPED_BUCKETS = (0, 1, 2, 3, 4, 6, 8, 12, 16)
BATCH_BUCKETS = tuple(2**k for k in range(11))
METHODS = ("prefill", "decode")
MOST_S = 1e7
"""Longer durations are not believed; nor are those that are no numbers."""
CHUNK_TOKENS = 1024
"""TGI schedules so many new tokens of a request at most, and observes that number."""
FAILURES = frozenset({kind.metric for kind in ErrorKind} | {"dropped"})
"""Values of ``err``; anything else is counted as ``other``."""
BARE_COUNTERS = frozenset(
    {
        "tgi_request_count",
        "tgi_request_success",
        "tgi_request_failure",
        "tgi_batch_inference_count",
        "tgi_batch_inference_success",
        "tgi_batch_inference_failure",
        "tgi_batch_concat",
    }
)
"""Counters whose names TGI exports without ``_total``."""


def hundredths(limit: int) -> tuple[float, ...]:
    """TGI's buckets for token counts: 1 % to 100 % of a limit."""
    return tuple(limit * k / 100 for k in range(1, 101))


class SkippedTokens(Collector):
    """``tgi_request_skipped_tokens``: tokens of a step beyond a sequence's first.

    PERF: one observation per sequence and step would cost about 1 µs each in ``Histogram``; whole
    steps are added at once instead.
    """

    def __init__(self) -> None:
        self._seen: Tallied[int] = Tallied()

    def add(self, skipped: int, sequences: int) -> None:
        """So many sequences got so many tokens more than one in one step."""
        self._seen[skipped] += sequences

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """For the registry."""
        seen = dict(self._seen)
        buckets = [
            (f"{bound:.1f}", float(sum(n for skipped, n in seen.items() if skipped <= bound)))
            for bound in SKIPPED_BUCKETS
        ]
        buckets.append(("+Inf", float(sum(seen.values()))))
        yield HistogramMetricFamily(
            "tgi_request_skipped_tokens",
            "Tokens beyond the first that a sequence got in one step",
            buckets=buckets,
            sum_value=float(sum(skipped * n for skipped, n in seen.items())),
        )


class Metrics:
    """Everything that is counted. Plain counters are public, the rest has verbs."""

    def __init__(self, settings: Settings) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self._requests(settings)
        self._batches()
        self._own()

    def render(self) -> bytes:
        """The Prometheus text."""
        return render(self.registry, BARE_COUNTERS)

    # --- verbs --------------------------------------------------------------------------------

    def accepted(self, input_tokens: int, max_new_tokens: int) -> None:
        """A sequence was accepted for the first time (Submit)."""
        self._input_length.observe(input_tokens)
        self._max_new_tokens.observe(min(max_new_tokens, CHUNK_TOKENS))

    def tally(self, tally: Tally) -> None:
        """What front ends have counted."""
        if tally.requests > 0:
            self._request_count.inc(tally.requests)
        for err, count in tally.failures.items():
            self.failed(err, count)

    def failed(self, err: str, count: int = 1) -> None:
        """Requests failed; unknown reasons become ``other``."""
        if count > 0:
            self._request_failure.labels(err if err in FAILURES else "other").inc(count)

    def delivered(self, delivered: Delivered) -> None:
        """A sequence's end has reached its client; only successes are observed."""
        durations = (
            delivered.total_s, delivered.validation_s, delivered.queue_s, delivered.inference_s,
        )  # fmt: skip
        if not all(0.0 <= duration <= MOST_S for duration in durations):
            self.bad_frames.labels("requests").inc()
            return
        if not delivered.success:
            return
        self._request_success.inc()
        for histogram in self._durations:
            histogram.observe(delivered.total_s)
        self._validation.observe(delivered.validation_s)
        self._queue.observe(delivered.queue_s)
        self._inference.observe(delivered.inference_s)
        self._per_token.observe(delivered.inference_s / max(delivered.generated_tokens, 1))
        self._generated_tokens.observe(delivered.generated_tokens)

    def step(self, timing: StepTiming, *, failed: bool) -> None:
        """A worker's step has retired; ``failed`` if it lost a sequence."""
        method = METHODS[0] if timing.prefill_tokens else METHODS[1]
        self._step_count[method].inc()
        (self._step_failure if failed else self._step_success)[method].inc()
        self._step_inference[method].observe(timing.total_s)
        self._step_forward[method].observe(timing.forward_s)
        self._step_decode[method].observe(timing.sample_s)
        self._step_filter[method].observe(timing.publish_s)

    def admitted(self, sequences: int, reason: str | None, took_s: float) -> None:
        """Sequences left the queue together; with a reason if they joined running ones."""
        self._next_size.observe(sequences)
        if reason is not None:
            self._concat.labels(reason).inc()
            self._concat_duration.observe(took_s)

    def watch(self, name: str, help_text: str, value: Callable[[], float]) -> None:
        """A gauge that is read from its owner at every scrape."""
        Gauge(name, help_text, registry=self.registry).set_function(value)

    def watch_blocks(self, replica: int, state: str, value: Callable[[], float]) -> None:
        """KV blocks of a replica in one state (``free``, ``cached``, ``used``)."""
        self._blocks.labels(str(replica), state).set_function(value)

    # --- the registry -------------------------------------------------------------------------

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(name, help_text, labels, registry=self.registry)

    def _histogram(
        self,
        name: str,
        help_text: str,
        buckets: tuple[float, ...] = DURATION_BUCKETS,
        *labels: str,
    ) -> Histogram:
        return Histogram(name, help_text, labels, buckets=buckets, registry=self.registry)

    def _requests(self, settings: Settings) -> None:
        inputs = hundredths(settings.max_input_tokens)
        totals = hundredths(settings.max_total_tokens)
        self._request_count = self._counter("tgi_request_count", "Requests")
        self._request_success = self._counter("tgi_request_success", "Sequences that ended well")
        self._request_failure = self._counter("tgi_request_failure", "Failed requests", "err")
        self._durations = [
            self._histogram("tgi_request_duration", "Seconds from arrival to end"),
            self._histogram("tgi_request_duration_seconds", "Same as tgi_request_duration"),
        ]
        self._validation = self._histogram(
            "tgi_request_validation_duration", "Seconds from arrival to submission"
        )
        self._queue = self._histogram("tgi_request_queue_duration", "Seconds in the queue")
        self._inference = self._histogram(
            "tgi_request_inference_duration", "Seconds from the queue to the end"
        )
        self._per_token = self._histogram(
            "tgi_request_mean_time_per_token_duration", "Inference seconds per generated token"
        )
        self._generated_tokens = self._histogram(
            "tgi_request_generated_tokens", "Generated tokens per sequence", totals
        )
        self._input_length = self._histogram(
            "tgi_request_input_length", "Prompt tokens per sequence", inputs
        )
        self._max_new_tokens = self._histogram(
            "tgi_request_max_new_tokens", "Tokens that a sequence may generate", totals
        )
        self.skipped = SkippedTokens()
        self.registry.register(self.skipped)

    def _by_method(self, metric: Counter) -> dict[str, Counter]:
        return {method: metric.labels(method) for method in METHODS}

    def _duration_by_method(self, name: str, help_text: str) -> dict[str, Histogram]:
        metric = self._histogram(name, help_text, DURATION_BUCKETS, "method")
        return {method: metric.labels(method) for method in METHODS}

    def _batches(self) -> None:
        counter = self._counter
        self._step_count = self._by_method(
            counter("tgi_batch_inference_count", "Steps of workers", "method")
        )
        self._step_success = self._by_method(
            counter("tgi_batch_inference_success", "Steps without a failed sequence", "method")
        )
        self._step_failure = self._by_method(
            counter("tgi_batch_inference_failure", "Steps with a failed sequence", "method")
        )
        durations = self._duration_by_method
        self._step_inference = durations("tgi_batch_inference_duration", "Seconds per step")
        self._step_forward = durations("tgi_batch_forward_duration", "Seconds in the model")
        self._step_decode = durations("tgi_batch_decode_duration", "Seconds choosing tokens")
        self._step_filter = durations("tgi_batch_filter_duration", "Seconds publishing tokens")
        self._concat_duration = self._histogram(
            "tgi_batch_concat_duration",
            "Seconds of admitting sequences to running ones",
            DURATION_BUCKETS,
            "method",
        ).labels("decode")
        self._concat = counter(
            "tgi_batch_concat", "How often sequences joined running ones", "reason"
        )
        self._next_size = self._histogram(
            "tgi_batch_next_size", "Sequences that left the queue together", BATCH_BUCKETS
        )

    def _own(self) -> None:
        counter = self._counter
        self.preemptions = counter("millrace_preemptions", "Sequences preempted for blocks")
        self.recovered = counter("millrace_recovered_sequences", "Sequences of lost replicas")
        self.replicas_lost = counter("millrace_replicas_lost", "Replicas lost")
        self.replicas_hung = counter("millrace_replicas_hung", "Replicas killed because they hung")
        self.poisonous = counter(
            "millrace_poisonous_sequences", "Sequences given up because they end workers"
        )
        self.prompt_tokens = counter("millrace_prompt_tokens", "Known tokens of admissions")
        self.cached_tokens = counter(
            "millrace_prefix_hit_tokens", "Known tokens of admissions found in the prefix cache"
        )
        self.wasted_tokens = counter(
            "millrace_wasted_tokens", "Tokens computed that nobody waited for any more"
        )
        self.resumed = counter(
            "millrace_resumed_sequences", "Sequences whose clients took up their streams again"
        )
        self.ended = counter("millrace_sequences_ended", "Ends of sequences", "reason")
        self.bad_frames = counter("millrace_bad_frames", "Frames that did not decode", "socket")
        self.unreachable = counter("millrace_unreachable", "Messages without a receiver", "peer")
        self.broken_leases = counter(
            "millrace_broken_leases", "Checks that found free + cached + leased != total"
        )
        self._blocks = Gauge(
            "millrace_kv_blocks",
            "KV blocks by replica and state",
            ("replica", "state"),
            registry=self.registry,
        )
