"""Settings and fixtures shared by all tests."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from curation.threads import set_defaults

if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the processors
    os.environ.setdefault("CURATION_THREADS", "1")
set_defaults()  # before numpy, faiss or torch are imported
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from hostile_table import summary  # noqa: E402

# Most of its time is waiting for other processes: begun last, it would end alone.
BEGUN_FIRST = ("test_server.py",)
PACKAGE_REASON = "Debian package"


def need_debian(package: str, path: str) -> None:
    """Skip the test, naming the package, where a Debian package is not installed."""
    if not Path(path).exists():
        pytest.skip(f"needs the {PACKAGE_REASON} {package} (apt-get install {package})")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    """In CI every package is installed: a skip for want of one is a failure."""
    outcome = yield
    report = outcome.get_result()
    reasons = (PACKAGE_REASON, "dataset-fashion-mnist")
    skipped_for_package = report.skipped and any(r in str(report.longrepr) for r in reasons)
    if skipped_for_package and os.environ.get("CI"):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long files first; workers take whole files, in this order."""
    items.sort(key=lambda item: item.path.name not in BEGUN_FIRST)


@pytest.fixture(scope="session")
def _stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Paths for stores; `mktemp` for each of thousands would look through all there are."""
    root = tmp_path_factory.mktemp("stores")
    return (root / str(number) for number in itertools.count())


@pytest.fixture(autouse=True)
def _own_store(_stores: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """No test writes into the project's own store or Dagster home."""
    root = next(_stores)
    root.mkdir()
    monkeypatch.setenv("CURATION_STORE", str(root))
    monkeypatch.delenv("DAGSTER_HOME", raising=False)


@pytest.fixture
def rng() -> np.random.Generator:
    """A seeded generator."""
    return np.random.default_rng(20240217)


@pytest.fixture
def file_system(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts file systems of a size, "2m" say, until the end of the test."""
    mounted: list[Path] = []

    def mount(size: str) -> Path:
        place = tmp_path / f"disk-{len(mounted)}"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place)]
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except FileNotFoundError:
            pytest.skip("needs the command mount")
        if done.returncode:
            pytest.skip(f"a file system can't be mounted here: {done.stderr.strip()}")
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", str(place)], check=True)


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of Debian's Chromium."""
    found = shutil.which("chromium") or "/usr/bin/chromium"
    need_debian("chromium", found)
    return found


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what became of the hostile inputs (here, since workers have no terminal)."""
    summary(terminalreporter)
