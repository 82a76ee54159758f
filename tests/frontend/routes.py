"""The routes of an application, for tests that ask something of every one."""

import re

import falcon.inspect

from tests.frontend.fakes import Server


def routes(server: Server) -> list[tuple[str, set[str]]]:
    """Every path, with names filled in, and the methods that it answers (OPTIONS not)."""
    found = falcon.inspect.inspect_routes(server.client.app)
    return [
        (
            re.sub(r"\{[^}]*\}", "any", route.path),
            {method.method for method in route.methods if not method.internal},
        )
        for route in found
    ]
