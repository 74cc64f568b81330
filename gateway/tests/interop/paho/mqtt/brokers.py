"""Stands where Paho's test suite looks for the broker of its testing project, and points at a gateway.

The suite starts that broker in a thread, asks its server for the port, and shuts it down in the end. INTEROP_PORT is the port
on which the gateway listens.
"""

import os
import threading

DONE = threading.Event()


def run(config):
    """Runs for as long as the suite does."""
    assert config == ["listener 0"], config
    DONE.wait()


class Server:
    """The gateway, as far as the suite asks for it."""

    def __init__(self):
        self.socket = self

    def getsockname(self):
        return "127.0.0.1", int(os.environ["INTEROP_PORT"])

    def shutdown(self):
        DONE.set()


class listeners:
    """Where the suite looks for the server."""

    class TCPListeners:
        server = Server()
