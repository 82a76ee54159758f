"""Streams that a client may take up again: ids for their events, and how they are written anew."""
