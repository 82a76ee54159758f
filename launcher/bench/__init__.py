"""The load generator: work for a server, sent and timed; the figures and pictures that come of it.

Ships with the server (``millrace bench``) and is what ``bench/`` measures with. Speaks HTTP by the
standard library's client over gevent's sockets, which every installation has, and does little per
event: what a client takes from a shared CPU is missing in the result. Knows nothing of the server
but its API.
"""
