"""A real webserver and daemon on loopback, as ``curation ui`` starts them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any


def free_port() -> int:
    """Return a port on loopback that is free now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Server:
    """``curation ui`` over a store of its own; stopped by its own process group."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "server.log"
        self.process: subprocess.Popen | None = None

    def start(self, *, timeout: float = 120.0) -> None:
        """Start and wait until the code location is loaded."""
        env = {**os.environ, "CURATION_STORE": str(self.folder / "store"), "CURATION_THREADS": "2"}
        for name in ("DAGSTER_HOME", "CURATION_PICTURES"):  # as it is for users
            env.pop(name, None)
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "curation.cli", "ui", "--port", str(self.port)],
                stdout=log, stderr=subprocess.STDOUT, env=env, start_new_session=True,
            )  # fmt: skip
        query = "{ repositoriesOrError { ... on RepositoryConnection { nodes { name } } } }"
        ends = time.monotonic() + timeout
        while time.monotonic() < ends:
            if self.process.poll() is not None:
                break
            try:
                if self.ask(query)["repositoriesOrError"]["nodes"]:
                    return
            except (OSError, KeyError, ValueError):
                pass
            time.sleep(0.5)
        raise RuntimeError(f"the server did not come up:\n{self.log.read_text()[-4000:]}")

    def stop(self) -> None:
        """Stop the server and everything it started (it ignores SIGINT in the background)."""
        if self.process is None:
            return
        for sign in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, sign)  # also where its leader has ended: others may not
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(30)

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """Send a GraphQL query and return its data."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(
            f"{self.url}/graphql", body, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                told = json.loads(answer.read())
        except urllib.error.HTTPError as error:
            raise ValueError(error.read().decode()) from None
        if told.get("errors"):
            raise ValueError(json.dumps(told["errors"])[:2000])
        return told["data"]

    def wait(self, what: str, check: Any, *, timeout: float = 240.0) -> Any:
        """Wait until `check` returns something true."""
        ends = time.monotonic() + timeout
        while time.monotonic() < ends:
            found = check()
            if found:
                return found
            time.sleep(1.0)
        raise AssertionError(f"{what}: not within {timeout} s\n{self.log.read_text()[-3000:]}")
