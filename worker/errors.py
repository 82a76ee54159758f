"""Errors that end a worker's process, whatever it is doing. Knows no torch."""


class GroupLostError(Exception):
    """The other shards of the model are lost: this process has to end, and to begin anew."""
