"""Small files that are kept between processes, for one user on one machine."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return ``$XDG_CACHE_HOME/curation``, or ``~/.cache/curation``; it may not exist yet."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if base.startswith("/"):
        return Path(base) / "curation"
    return Path("~").expanduser() / ".cache" / "curation"


def keep_first(path: Path, text: str) -> str | None:
    """Write a file unless it is there, and return what it holds now.

    Of several processes that do so at once, the first one's text stays, and all return it. Where
    nothing can be written, None is returned.
    """
    scratch = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_text(text, encoding="utf-8")
        try:
            os.link(scratch, path)  # fails where it is there, unlike a rename
        except FileExistsError:
            return path.read_text(encoding="utf-8")
        finally:
            scratch.unlink(missing_ok=True)
    except OSError:
        return None
    return text
