"""Errors that end what a worker is doing, whatever it is. Knows no torch."""


class GroupLostError(Exception):
    """The other shards of the model are lost: this process has to end, and to begin anew."""


class NotRecordedError(Exception):
    """A program cannot be replayed on this device: why, in a few words. It has to be run."""
