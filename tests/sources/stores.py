"""An S3 server on loopback, and one in front of it that does what networks do."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "date", "server", "content-length"}


@dataclass
class Faults:
    """What goes wrong: `choose` gets method, path and number of the request, returns a fault."""

    choose: Callable[[str, str, int], str] = lambda method, path, number: ""
    requests: list[tuple[str, str]] = field(default_factory=list)

    def first(self, count: int, fault: str, *, method: str = "GET", ending: str = "") -> None:
        """Let the first `count` requests of this kind go wrong."""
        left = [count]

        def choose(asked: str, path: str, _: int) -> str:
            if asked != method or not path.split("?")[0].endswith(ending) or left[0] == 0:
                return ""
            left[0] -= 1
            return fault

        self.choose = choose


@contextmanager
def proxy(port: int, faults: Faults) -> Iterator[str]:
    """Serve what the server at `port` does, with faults; yields the address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass(self) -> None:
            faults.requests.append((self.command, self.path))
            fault = faults.choose(self.command, self.path, len(faults.requests))
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if fault == "hang":
                time.sleep(1.5)
                self.close_connection = True
                return
            if fault == "reset":  # a load balancer that gives up on us
                option = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)
                self.connection.shutdown(socket.SHUT_RD)
                self.close_connection = True
                return
            if fault in ("500", "503", "403"):
                code = b"AccessDenied" if fault == "403" else b"Broken"
                text = b"<Error><Code>%b</Code><Message>no luck</Message></Error>" % code
                self._answer(int(fault), {"Content-Type": "application/xml"}, text, len(text))
                return
            server = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            server.request(self.command, self.path, body, dict(self.headers))
            answer = server.getresponse()
            data = answer.read()
            length = len(data) if self.command != "HEAD" else answer.headers["Content-Length"] or 0
            kept = {k: v for k, v in answer.headers.items() if k.lower() not in HOP_BY_HOP}
            if fault == "cut":  # the connection breaks in the middle
                data = data[: len(data) // 2]
                self.close_connection = True
            if fault == "short":  # a cache that kept half of it
                data, length = data[: len(data) // 2], len(data) // 2
            if fault == "flip":
                kept = {k: v for k, v in kept.items() if not k.startswith("x-amz-checksum")}
                data = bytes([data[0] ^ 1]) + data[1:]
            self._answer(answer.status, kept, data, int(length))

        def _answer(self, status: int, headers: dict, data: bytes, length: int) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_HEAD = do_PUT = do_POST = _pass  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
