"""What a report says of each sequence, whichever way it says it."""

from common.messages import FromWorker, Progress, SequenceTokens, StepReport


def progress_of(report: FromWorker) -> list[Progress]:
    """Of all sequences; of other messages nothing."""
    if not isinstance(report, StepReport):
        return []
    found = list(report.items)
    if report.steady is not None:
        columns = [getattr(report.steady, name) for name in report.steady.__struct_fields__]
        for sequence, attempt, index, token, logprob, computed in zip(*columns, strict=True):
            tokens = SequenceTokens(sequence, attempt, index, [token], [logprob])
            found.append(Progress(tokens, computed))
    return found
