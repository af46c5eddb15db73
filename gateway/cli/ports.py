"""Ports to listen on, looked at before processes are started: a taken one gives a sentence instead of five deaths.

Between the look and the listening another program may still take the port; then the supervisor tells of it.
"""

import errno
import socket
import time

RELEASE_WAIT_S = 2.0
"""How long a taken port is looked at again: processes of a killed supervisor need some milliseconds to end."""
POLL_S = 0.05
ANY_FREE = 0


class PortTaken(Exception):
    def __init__(self, host: str, port: int) -> None:
        super().__init__(f"port {port} on {host} is taken")
        self.port = port


def free_port(host: str, wanted: int, wait_s: float = RELEASE_WAIT_S) -> int:
    """`wanted`, or any free one for ANY_FREE. Raises PortTaken, and OSError for a host that is not of this machine."""
    deadline_s = time.monotonic() + wait_s
    while True:
        try:
            return _bound_port(host, wanted)
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            if time.monotonic() >= deadline_s:
                raise PortTaken(host, wanted) from error
        time.sleep(POLL_S)


def _bound_port(host: str, wanted: int) -> int:
    family, kind, protocol, _, address = socket.getaddrinfo(host, wanted, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of a former server linger
        probe.bind(address)
        return int(probe.getsockname()[1])
