"""What a report says of each sequence, whichever way it says it."""

from common.messages import (
    FromWorker,
    Progress,
    SequenceTokens,
    StepReport,
    StepReports,
    Tokens,
)


def reports_of(message: FromWorker) -> list[StepReport]:
    """Those in a message, in order."""
    if isinstance(message, StepReports):
        return message.reports
    return [message] if isinstance(message, StepReport) else []


def items_of(message: Tokens) -> list[SequenceTokens]:
    """Of all sequences of a step."""
    found = list(message.items)
    if message.following is not None:
        columns = [getattr(message.following, name) for name in message.following.__struct_fields__]
        for sequence, attempt, index, token, logprob in zip(*columns, strict=True):
            found.append(SequenceTokens(sequence, attempt, index, [token], [logprob]))
    return found


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
