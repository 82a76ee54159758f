"""How mistakes of ours are told in the log: by type and place, never by their words."""

import traceback


def describe(error: BaseException) -> str:
    """Type and place of an error; without its message, which could quote a prompt."""
    frames = traceback.extract_tb(error.__traceback__)
    place = " < ".join(f"{frame.name}:{frame.lineno}" for frame in reversed(frames[-4:]))
    return f"{type(error).__name__} at {place}"
