"""What a report says of each sequence, whichever way it says it."""

from common.messages import FromWorker, Progress, SequenceTokens, StepReport


def progress_of(report: FromWorker) -> list[Progress]:
    """Of all sequences; of other messages nothing."""
    if not isinstance(report, StepReport):
        return []
    found = list(report.items)
    if report.steady is not None:
        steady, first = report.steady, 0
        counts = steady.counts or [1] * len(steady.ids)
        for number, count in enumerate(counts):
            tokens = SequenceTokens(
                steady.ids[number],
                steady.attempts[number],
                steady.indices[number],
                steady.tokens[first : first + count],
                steady.logprobs[first : first + count],
            )
            found.append(Progress(tokens, steady.computed_tokens[number]))
            first += count
    return found
