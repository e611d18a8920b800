"""Cases of pictures, archives and saved data sets."""

from __future__ import annotations

import io
import json
import struct
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from corpus_case import Expected, case, failed
from PIL import Image

WORLD = "pictures"


def _image(seed: int = 0, mode: str = "L", size: tuple[int, int] = (9, 7)) -> Any:
    rng = np.random.default_rng(seed)
    grey = Image.fromarray(rng.integers(256, size=size[::-1], dtype=np.uint8))
    return grey.convert(mode)


def good_pictures(folder: Path) -> dict[str, Expected]:
    """Write two sound folders of pictures."""
    expected = {}
    for shard in ("good-a", "good-b"):
        rows = {}
        for i in range(24):
            label = f"class {i % 3}"
            path = folder / shard / label / f"{i:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            _image(i + 100 * (shard == "good-b")).save(path)
        names = sorted(p.relative_to(folder / shard) for p in (folder / shard).rglob("*.png"))
        rows = {i: (name.as_posix(), name.parts[0]) for i, name in enumerate(names)}
        expected[shard] = Expected("accepted", rows)
    return expected


def _put(folder: Path, shard: str, files: dict[str, bytes | Any]) -> list[str]:
    (folder / shard / "x").mkdir(parents=True)
    for name, data in files.items():
        path = folder / shard / "x" / name
        if isinstance(data, bytes):
            path.write_bytes(data)
        else:
            data.save(path)
    return sorted(files)


def _kept(names: list[str], wrong: dict[str, str]) -> Expected:
    good = {i: (f"x/{n}", "x") for i, n in enumerate(names) if n not in wrong}
    aside = {names.index(n): ("_unparsed", reason) for n, reason in wrong.items()}
    return Expected("quarantine" if aside else "accepted", good, aside)


@case(WORLD, "modes 1, P, LA, RGBA, CMYK, I;16, F; 1x1 and 3000x1; an animated GIF")
def modes(folder: Path) -> Expected:
    sixteen = Image.fromarray(np.arange(63, dtype=np.uint16).reshape(7, 9) * 900)
    frames = [_image(i) for i in range(3)]
    moving = io.BytesIO()
    frames[0].save(moving, "GIF", save_all=True, append_images=frames[1:])
    files: dict[str, Any] = {f"{m}.png": _image(mode=m) for m in ("1", "P", "LA", "RGBA")}
    files |= {"CMYK.jpg": _image(mode="CMYK"), "F.tif": _image(mode="F"), "I16.png": sixteen}
    files |= {"moving.gif": moving.getvalue(), "one.png": _image(size=(1, 1))}
    files |= {"line.png": _image(size=(3000, 1))}
    return _kept(_put(folder, "modes", files), {})


@case(WORLD, "a JPEG cut off, a text called .png, an empty file, a bomb, SVG, EPS called .png")
def damaged(folder: Path) -> Expected:
    jpeg = io.BytesIO()
    _image(size=(64, 64)).save(jpeg, "JPEG")
    files = {
        "cut.jpg": jpeg.getvalue()[:-400],
        "text.png": b"no picture at all",
        "empty.png": b"",
        "bomb.png": _bomb(60_000),
        "svg.png": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "eps.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) print\n",
        "good.png": _image(),
    }
    wrong = {
        "cut.jpg": "cannot be decoded",
        "text.png": "not a picture",
        "empty.png": "not a picture",
        "bomb.png": "more than \\d+ pixels",
        "svg.png": "not a picture",
        "eps.png": "not a picture",
    }
    return _kept(_put(folder, "damaged", files), wrong)


def _bomb(side: int) -> bytes:
    """Return a PNG of a few bytes that says it is huge."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    body = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@case(WORLD, "pictures that are links: outside, to nothing, to a folder")
def links(folder: Path) -> Expected:
    outside = folder.parent / "outside.png"
    _image().save(outside)
    names = _put(folder, "links", {"good.png": _image()})
    inside = folder / "links" / "x"
    (inside / "out.png").symlink_to(outside)
    (inside / "nothing.png").symlink_to(inside / "not-there.png")
    (inside / "folder.png").symlink_to(folder / "good-a")
    names = sorted([*names, "out.png", "nothing.png", "folder.png"])
    wrong = {"out.png": "outside", "nothing.png": "leads to", "folder.png": "outside|not a file"}
    return _kept(names, wrong)


@case(WORLD, "a folder without a single picture that can be used")
def none_usable(folder: Path) -> Expected:
    _put(folder, "none-usable", {"a.png": b"x", "b.jpg": b"y"})
    return failed("none of the 2 rows")


@case(WORLD, "labels and names of files with markup, spaces, line ends, bytes that are no text")
def odd_names(folder: Path) -> Expected:
    label = "<b>bold & 'quoted'\n"
    inside = folder / "odd-names" / label
    inside.mkdir(parents=True)
    names = ["50% off.png", "line\nend.png", "🦆\u202e.png"]
    for name in names:
        _image().save(inside / name)
    names = sorted(names)
    return Expected("accepted", {i: (f"{label}/{n}", label) for i, n in enumerate(names)})


TAR = "archives"


def _tar(path: Path, members: list[tuple[str, bytes | tarfile.TarInfo]]) -> None:
    with tarfile.open(path, "w") as out:
        for name, data in members:
            if isinstance(data, tarfile.TarInfo):
                data.name = name
                out.addfile(data)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))


def _samples(count: int = 3) -> list[tuple[str, bytes]]:
    """Return a text and a class per sample."""
    found = []
    for i in range(count):
        found += [(f"s{i}.txt", f"text {i}".encode()), (f"s{i}.cls", str(i % 2).encode())]
    return found


def _good(count: int = 3, start: int = 0) -> dict[int, tuple[str | None, str]]:
    return {start + i: (f"s{i}", str(i % 2)) for i in range(count)}


def good_archives(folder: Path) -> dict[str, Expected]:
    """Write two sound archives."""
    for shard in ("good-a", "good-b"):
        _tar(folder / f"{shard}.tar", _samples())
    return {shard: Expected("accepted", _good()) for shard in ("good-a", "good-b")}


def _special(kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo()
    info.type, info.linkname = kind, target
    return info


@case(TAR, "members with absolute paths, with .., that are links, devices and pipes")
def traversal(folder: Path) -> Expected:
    evil: list[tuple[str, Any]] = [
        ("/etc/absolute.txt", b"x"),
        ("../../up.txt", b"x"),
        ("symbolic.txt", _special(tarfile.SYMTYPE, "/etc/passwd")),
        ("hard.txt", _special(tarfile.LNKTYPE, "../../etc/passwd")),
        ("device.txt", _special(tarfile.CHRTYPE)),
        ("pipe.txt", _special(tarfile.FIFOTYPE)),
    ]
    _tar(folder / "traversal.tar", [*_samples(), *evil])
    reasons = ("absolute", "leaves the archive", "a link", "a link", "device", "device or pipe")
    wrong = {3 + i: ("_unparsed", reason) for i, reason in enumerate(reasons)}
    return Expected("quarantine", _good(), wrong)


@case(TAR, "an archive, cut off")
def tar_cut(folder: Path) -> Expected:
    path = folder / "tar-cut.tar"
    _tar(path, _samples())
    path.write_bytes(path.read_bytes()[:2100])
    return failed("to its end")


@case(TAR, "an archive with a broken header")
def tar_header(folder: Path) -> Expected:
    path = folder / "tar-header.tar"
    _tar(path, _samples())
    data = bytearray(path.read_bytes())
    data[1024 + 148] ^= 0x11
    path.write_bytes(bytes(data))
    return failed("broken header")


@case(TAR, "texts that are not UTF-8, JSON that is none, arrays that are pickles")
def members(folder: Path) -> Expected:
    array = io.BytesIO()
    np.save(array, np.array([{}], dtype=object), allow_pickle=True)
    more = [
        ("latin.txt", b"caf\xe9"), ("latin.cls", b"1"),
        ("json.txt", b"a"), ("json.json", b"{no"),
        ("pickle.txt", b"a"), ("pickle.npy", array.getvalue()),
    ]  # fmt: skip
    _tar(folder / "members.tar", [*_samples(), *more])
    reasons = ("not UTF-8", "not JSON", "not an array")
    wrong = {3 + i: ("_unparsed", reason) for i, reason in enumerate(reasons)}
    return Expected("quarantine", _good(), wrong)


@case(TAR, "an empty archive, and one of zeros")
def tar_zeros(folder: Path) -> Expected:
    (folder / "tar-zeros.tar").write_bytes(b"\0" * 10240)
    return failed("no rows")


@case(TAR, "gzip garbage under the name of a packed archive")
def tar_garbage(folder: Path) -> Expected:
    (folder / "tar-garbage.tar.gz").write_bytes(b"\x1f\x8b garbage")
    return failed("to its end")


SAVED = "saved"


def _save(path: Path) -> None:
    import datasets

    rows = {"text": ["a", "b", "c"], "label": ["x", "y", "x"], "key": ["1", "2", "3"]}
    datasets.Dataset.from_dict(rows).save_to_disk(str(path))


def good_saved(folder: Path) -> dict[str, Expected]:
    """Write two sound saved data sets."""
    for shard in ("good-a", "good-b"):
        _save(folder / shard)
    good = {0: ("1", "x"), 1: ("2", "y"), 2: ("3", "x")}
    return {shard: Expected("accepted", good) for shard in ("good-a", "good-b")}


def _state(folder: Path, shard: str, **changes: Any) -> None:
    _save(folder / shard)
    path = folder / shard / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _elsewhere(name: str, told: str, file: str, message: str) -> None:
    @case(SAVED, told, name)
    def make(folder: Path) -> Expected:
        _state(folder, name, _data_files=[{"filename": file}])
        return failed(message)


_OUTSIDE, _UNREAD = "outside the folder", "cannot read"
for _of, _told, _file, _message in (
    ("up", "a file above it", "../good-a/data-00000-of-00001.arrow", _OUTSIDE),
    ("absolute", "an absolute file", "/etc/passwd", _OUTSIDE),
    ("address", "an address", "https://evil.example/x.arrow", _UNREAD),
    ("missing", "a file that is not there", "no.arrow", _UNREAD),
):
    _elsewhere(f"file-{_of}", f"a saved data set that names {_told}", _file, _message)


@case(SAVED, "a saved data set whose state is no JSON")
def state_garbage(folder: Path) -> Expected:
    _save(folder / "state-garbage")
    (folder / "state-garbage" / "state.json").write_text("{no")
    return failed("cannot read")


@case(SAVED, "a saved data set whose state is a list")
def state_list(folder: Path) -> Expected:
    _save(folder / "state-list")
    (folder / "state-list" / "state.json").write_text("[1, 2]")
    return failed("cannot read")


@case(SAVED, "a saved data set whose rows are a link outside")
def data_link(folder: Path) -> Expected:
    _save(folder / "data-link")
    file = next((folder / "data-link").glob("*.arrow"))
    outside = folder.parent / "outside.arrow"
    file.rename(outside)
    file.symlink_to(outside)
    return failed("outside the folder")
