"""Sound files to start from, one of each format, and what is done to them."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from hypothesis import strategies as st
from PIL import Image

ROWS = [
    {"key": f"k{i}", "text": f"text {i} é", "label": f"c{i % 2}", "size": i / 2} for i in range(6)
]


def comma(rows: list[dict[str, Any]]) -> bytes:
    """Return rows as a CSV file; null is an empty field."""

    def field(value: Any) -> str:
        return "" if value is None else '"' + str(value).replace('"', '""') + '"'

    lines = [",".join(rows[0]), *(",".join(field(row[name]) for name in rows[0]) for row in rows)]
    return "".join(line + "\n" for line in lines).encode()


def jsonl(rows: list[dict[str, Any]], *, escaped: bool = False) -> bytes:
    """Return rows as JSON lines."""
    return "".join(json.dumps(row, ensure_ascii=escaped) + "\n" for row in rows).encode()


def zstd(data: bytes) -> bytes:
    """Pack bytes."""
    packed: bytes = pa.Codec("zstd").compress(data, asbytes=True)
    return packed


def parquet(frame: pl.DataFrame) -> bytes:
    """Return a frame as a Parquet file."""
    out = io.BytesIO()
    frame.write_parquet(out)
    return out.getvalue()


def arrow(frame: pl.DataFrame, *, stream: bool = False) -> bytes:
    """Return a frame as an Arrow file or stream."""
    table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
    out = io.BytesIO()
    new = pa.ipc.new_stream if stream else pa.ipc.new_file
    with new(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue()


def npy(matrix: np.ndarray) -> bytes:
    """Return an array as a file of numpy's."""
    out = io.BytesIO()
    np.save(out, matrix)
    return out.getvalue()


def tar(members: list[tuple[str, bytes]], mode: str = "w") -> bytes:
    """Return members as an archive."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def picture(kind: str) -> bytes:
    """Return a small picture."""
    out = io.BytesIO()
    grey = np.random.default_rng(1).integers(256, size=(8, 8), dtype=np.uint8)
    Image.fromarray(grey).save(out, kind)
    return out.getvalue()


def _members() -> list[tuple[str, bytes]]:
    found = []
    for i, row in enumerate(ROWS):
        more = json.dumps({"label": row["label"], "size": row["size"]}).encode()
        found += [(f"s{i}.txt", str(row["text"]).encode()), (f"s{i}.json", more)]
        found += [(f"s{i}.png", picture("PNG")), (f"s{i}.npy", npy(np.ones((1, 2))))]
    return found


_FRAME = pl.DataFrame(ROWS).with_columns(pl.Series("vector", [[1.0, 2.0]] * 6))

SEEDS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "parquet": ("s.parquet", lambda: parquet(_FRAME)),
    "jsonl": ("s.jsonl", lambda: jsonl(ROWS)),
    "jsonl.gz": ("s.jsonl.gz", lambda: gzip.compress(jsonl(ROWS), mtime=0)),
    "jsonl.zst": ("s.jsonl.zst", lambda: zstd(jsonl(ROWS))),
    "csv": ("s.csv", lambda: comma(ROWS)),
    "csv.gz": ("s.csv.gz", lambda: gzip.compress(comma(ROWS), mtime=0)),
    "arrow": ("s.arrow", lambda: arrow(_FRAME)),
    "arrow stream": ("s.arrow", lambda: arrow(_FRAME, stream=True)),
    "npy": ("s.npy", lambda: npy(np.arange(12.0).reshape(6, 2))),
    "tar": ("s.tar", lambda: tar(_members())),
    "tar.gz": ("s.tar.gz", lambda: tar(_members(), "w:gz")),
    "png": ("x/s.png", lambda: picture("PNG")),
    "jpeg": ("x/s.jpg", lambda: picture("JPEG")),
    "gif": ("x/s.gif", lambda: picture("GIF")),
    "tiff": ("x/s.tif", lambda: picture("TIFF")),
}
"""By name: what the file is called, and its bytes."""

BYTES = {name: make() for name, (_, make) in SEEDS.items()}


@st.composite
def broken(draw: Callable[[Any], Any], name: str) -> bytes:
    """Draw arbitrary bytes, or a sound file with bits turned, parts cut, moved or written over."""
    if draw(st.integers(0, 4)) == 0:
        return draw(st.binary(max_size=300))
    data = bytearray(BYTES[name])
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        how = draw(st.sampled_from(["flip", "cut", "move", "write", "drop", "number"]))
        if not data:
            break
        if how == "flip":
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif how == "cut":
            del data[at:]
        elif how == "move":
            start = draw(st.integers(0, len(data) - 1))
            data[at:at] = data[start : start + draw(st.integers(1, 64))]
        elif how == "write":
            new = draw(st.binary(min_size=1, max_size=8))
            data[at : at + len(new)] = new
        elif how == "drop":
            del data[at : at + draw(st.integers(1, 32))]
        else:  # a length or an offset that is far too large, or negative
            new = draw(st.sampled_from([2**31 - 1, 2**32 - 1, 2**62, 0, 1])).to_bytes(8, "little")
            data[at : at + 8] = new
    return bytes(data)


def put(folder: Path, name: str, data: bytes) -> Path:
    """Write a file and return what is read: the file, or the folder of a picture."""
    path = folder / SEEDS[name][0]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return folder if "/" in SEEDS[name][0] else path
