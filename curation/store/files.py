"""Files of the store: temporary names, and what makes a change survive a crash."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def remove_abandoned(folder: Path) -> None:
    """Remove temporary folders and pointers whose writer is dead."""
    for path in folder.glob(".tmp-*"):
        pid = path.name.split("-")[1]
        if pid.isdigit() and not _alive(int(pid)):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def fsync(path: Path) -> None:
    """Bring a file or folder to the disk."""
    flags = os.O_RDONLY | (os.O_DIRECTORY if path.is_dir() else 0)
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
