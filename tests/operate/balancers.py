"""HAProxy and nginx as they ship, on free ports; how each is told to leave a server alone.

Changes nothing of the shipped files but names and ports. Knows nothing of the servers.
"""

import os
import re
import socket
import subprocess
import time
from pathlib import Path
from typing import Protocol

from tests.deploy.queries import DEPLOY
from tests.end_to_end.harness import free_port
from tests.processes import children_of

NAMES = ("one", "two")
"""Of the servers, in the order of the files."""
_NGINX = """
daemon off; worker_processes 2; error_log stderr warn; pid {directory}/nginx.pid; {user}
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/a; uwsgi_temp_path {directory}/b; scgi_temp_path {directory}/c;
    include {shipped};
}}
"""


def instantiate(text: str, ports: list[int], front: int) -> str:
    """A shipped configuration with the ports of these servers, on another port than 80."""
    for place, port in enumerate(ports, 1):
        text, count = re.subn(rf"millrace-{place}:8080", f"127.0.0.1:{port}", text)
        assert count == 1
    text, count = re.subn(r"(?m)^(\s+(?:bind|listen) )(:?)80\b", rf"\g<1>\g<2>{front}", text)
    assert count == 1
    return text.replace("127.0.0.1:8404", f"127.0.0.1:{free_port()}")


class Balancer(Protocol):
    """A balancer in the foreground."""

    command: list[str]

    def take_out(self, name: str, port: int) -> None:
        """Nothing new goes to a server; what runs there goes on."""

    def put_back(self, name: str, port: int) -> None:
        """As before."""


class HaProxy:
    """Told over its socket, at once."""

    def __init__(self, directory: Path, ports: list[int], front: int) -> None:
        self._socket = directory / "admin.sock"
        path = directory / "haproxy.cfg"
        text = instantiate((DEPLOY / "haproxy" / "haproxy.cfg").read_text(), ports, front)
        path.write_text(
            text.replace("stats socket /run/haproxy/admin.sock", f"stats socket {self._socket}")
        )
        self.command = ["haproxy", "-db", "-f", str(path)]

    def take_out(self, name: str, port: int) -> None:
        self._say(f"set server millrace/millrace-{NAMES.index(name) + 1} state drain")

    def put_back(self, name: str, port: int) -> None:
        self._say(f"set server millrace/millrace-{NAMES.index(name) + 1} state ready")

    def _say(self, words: str) -> None:
        with socket.socket(socket.AF_UNIX) as talk:
            talk.connect(str(self._socket))
            talk.sendall(f"{words}\n".encode())
            assert talk.recv(1000).strip() == b""


class Nginx:
    """Reads its configuration anew; its old processes finish what they have."""

    def __init__(self, directory: Path, ports: list[int], front: int) -> None:
        self._pid = directory / "nginx.pid"
        self._shipped = directory / "millrace.conf"
        text = (DEPLOY / "nginx" / "millrace.conf").read_text()
        self._shipped.write_text(instantiate(text, ports, front))
        path = directory / "nginx.conf"
        user = "user root;" if os.getuid() == 0 else ""
        path.write_text(_NGINX.format(directory=directory, shipped=self._shipped, user=user))
        self.command = ["nginx", "-p", str(directory), "-c", str(path)]

    def take_out(self, name: str, port: int) -> None:
        self._reload(f"127.0.0.1:{port} max_fails", f"127.0.0.1:{port} down max_fails")

    def put_back(self, name: str, port: int) -> None:
        self._reload(f"127.0.0.1:{port} down max_fails", f"127.0.0.1:{port} max_fails")

    def _reload(self, before: str, after: str) -> None:
        text = self._shipped.read_text()
        assert before in text
        self._shipped.write_text(text.replace(before, after))
        old = set(self._processes())
        subprocess.run([*self.command, "-s", "reload"], check=True, timeout=20)
        end = time.monotonic() + 20
        while not set(self._processes()) - old:
            assert time.monotonic() < end, "nginx did not read its configuration"
            time.sleep(0.05)

    def _processes(self) -> list[int]:
        return children_of(int(self._pid.read_text()))


KINDS: dict[str, type[HaProxy] | type[Nginx]] = {"haproxy": HaProxy, "nginx": Nginx}
