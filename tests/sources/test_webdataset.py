"""Tar archives of samples."""

from __future__ import annotations

import gzip
import io
import json
import os
import sys
import tarfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from curation.config import Source
from curation.sources import SourceError, webdataset

PACKED = pytest.mark.parametrize("end", ["tar", "tar.gz", "tgz"])


def member(name: str, data: bytes | str = b"", **fields) -> tuple[tarfile.TarInfo, bytes]:
    content = data.encode() if isinstance(data, str) else data
    header = tarfile.TarInfo(name)
    header.size = len(content)
    for key, value in fields.items():
        setattr(header, key, value)
    return header, content


def pack(path: Path, *members: tuple[tarfile.TarInfo, bytes], **options) -> Path:
    mode = "w" if path.suffix == ".tar" else "w:gz"
    with tarfile.open(path, mode, **options) as archive:
        for header, content in members:
            archive.addfile(header, io.BytesIO(content))
    return path


def blocks(path: Path, **fields) -> list[pl.DataFrame]:
    config = Source(folder="/x", format="webdataset", **fields)
    found = list(webdataset.blocks(path, config=config, where="demo: shard a"))
    assert len({str(block.schema) for block in found}) == 1
    return found


def read(path: Path, **fields) -> pl.DataFrame:
    return pl.concat(blocks(path, **fields))


def picture(*rows: list[int]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.array(rows, dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def array(values, **options) -> bytes:
    file = io.BytesIO()
    np.save(file, np.asarray(values, **options))
    return file.getvalue()


@PACKED
def test_members_become_samples(tmp_path, end):
    path = pack(
        tmp_path / f"a.{end}",
        member("./d/", type=tarfile.DIRTYPE),
        member("./d/001.png", picture([1, 2, 3], [4, 5, 6])),
        member("./d/001.cls", " 7\n"),
        member("./d/001.txt", "\ufeffa dog \n"),
        member("./d/001.json", json.dumps({"score": 1, "tags": ["ü"], "id": "x"})),
        member("./d/001.mp3", b"\xff" * 1000),
        member("./d/002.cls", "8"),
        member("./d/002.json", json.dumps({"score": 0.5, "more": True})),
        member("./d/002.png", picture([9])),
        member("__index__.txt", "no sample"),
        member(".hidden.txt", "no sample"),
        member("d/._003.txt", "no sample"),
        member("README", "no sample"),
    )
    frame = read(path)
    assert frame.schema == {
        "id": pl.String,
        "image": pl.List(pl.UInt8),
        "width": pl.UInt32,
        "height": pl.UInt32,
        "cls": pl.String,
        "txt": pl.String,
        "score": pl.Float64,
        "tags": pl.String,
        "json.id": pl.String,
        "more": pl.Boolean,
        "_unparsed": pl.String,
    }
    assert frame.rows() == [
        ("d/001", [1, 2, 3, 4, 5, 6], 3, 2, "7", "a dog \n", 1.0, '["ü"]', "x", None, None),
        ("d/002", [9], 1, 1, "8", None, 0.5, None, None, True, None),
    ]


def test_keys_go_to_the_first_dot_of_the_name(tmp_path):
    path = pack(
        tmp_path / "a.tar",
        member("v1.2/s.left.png", picture([1])),
        member("v1.2/s.right.png", picture([2, 3])),
        member("v1.2/s.meta.json", '{"id": 5}'),
        member("v1.2/s.id", "own"),
        member("v1.2/s.TXT", "text"),
    )
    frame = read(path)
    assert frame.select("id", "left.image", "right.image", "right.width", "meta.id").rows() == [
        ("v1.2/s", [1], [2, 3], 2, 5)
    ]
    assert frame.select("member.id", "txt").rows() == [("own", "text")]


def test_a_repeated_ending_and_a_repeated_key_are_rows_of_their_own(tmp_path):
    names = ["a.txt", "a.txt", "b.txt", "a.txt"]
    path = pack(tmp_path / "a.tar", *(member(name, str(i)) for i, name in enumerate(names)))
    assert read(path).rows() == [
        ("a", "0", None),
        ("a", "1", None),
        ("b", "2", None),
        ("a", "3", None),
    ]


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([1, None, 3], pl.Int64, [1, None, 3]),
        ([1, 2.5], pl.Float64, [1.0, 2.5]),
        ([True, False], pl.Boolean, [True, False]),
        ([1, "a", 2.5, True, None], pl.String, ["1", "a", "2.5", "true", None]),
        ([True, 1], pl.String, ["true", "1"]),
        ([2**70, 1], pl.String, [str(2**70), "1"]),
        ([None, None], pl.String, [None, None]),
        ([{"a": [1]}, [2]], pl.String, ['{"a": [1]}', "[2]"]),
        (["\ud800x"], pl.String, [r"\ud800x"]),
    ],
)
def test_types_of_fields(tmp_path, values, kind, expected):
    members = (member(f"{i}.json", json.dumps({"f": v})) for i, v in enumerate(values))
    column = read(pack(tmp_path / "a.tar", *members))["f"]
    assert column.dtype == kind
    assert column.to_list() == expected


def test_fields_whose_names_are_taken(tmp_path):
    fields = {"json.json.txt": 3, "width": 640, "txt": 1, "_unparsed": "u", "json.txt": 2}
    path = pack(
        tmp_path / "a.tar",
        member("s.png", picture([1])),
        member("s.txt", "text"),
        member("s.json", json.dumps(fields)),
    )
    row = read(path).row(0, named=True)
    assert row["width"] == 1
    assert row["txt"] == "text"
    assert row["json.width"] == 640
    assert row["json._unparsed"] == "u"
    assert [row[f"{'json.' * n}txt"] for n in (1, 2, 3)] == [1, 3, 2]
    assert row["_unparsed"] is None


def test_json_that_is_no_object_is_one_column(tmp_path):
    path = pack(tmp_path / "a.tar", member("a.json", "[1, 2]"), member("b.json", "[]"))
    assert read(path)["json"].to_list() == ["[1, 2]", "[]"]


@pytest.mark.parametrize(
    ("dtypes", "inner"),
    [
        (["f4", ">f2", "u1"], pl.Float32),
        (["f4", "f8"], pl.Float64),
        (["i8"], pl.Float64),
    ],
)
def test_arrays_have_one_type(tmp_path, dtypes, inner):
    members = (member(f"{i}.npy", array([[1, 2], [3, 4]], dtype=d)) for i, d in enumerate(dtypes))
    column = read(pack(tmp_path / "a.tar", *members))["npy"]
    assert column.dtype == pl.List(inner)
    assert column.to_list() == [[1, 2, 3, 4]] * len(dtypes)


def test_blocks_are_bounded_and_alike(tmp_path):
    names = [f"{i:04d}" for i in range(50)]
    # What the first blocks have not yet: a fraction, a field, a picture.
    last = [
        member("z.json", '{"n": 0.5, "late": "x"}'),
        member("z.png", picture([1, 2])),
        member("z.vec.npy", array([1.5])),
    ]
    members = [
        m for n in names for m in (member(f"{n}.txt", n * 25000), member(f"{n}.json", '{"n": 1}'))
    ]
    found = blocks(pack(tmp_path / "a.tgz", *members, *last), block_mib=1)
    assert [block.height for block in found] == [11, 11, 11, 11, 7]
    assert found[0].schema["n"] == pl.Float64
    frame = pl.concat(found)
    assert frame["id"].to_list() == [*names, "z"]
    assert frame["late"].to_list() == [None] * 50 + ["x"]
    assert frame["vec.npy"][50].to_list() == [1.5]


def test_headers_are_not_gathered(tmp_path, monkeypatch):
    most = []
    original = tarfile.TarFile.next

    def watched(self):
        found = original(self)
        most.append(len(self.members))
        return found

    monkeypatch.setattr(tarfile.TarFile, "next", watched)
    read(pack(tmp_path / "a.tar", *(member(f"{i}.txt", "x") for i in range(100))))
    assert max(most) <= 2


class TestHostileMembers:
    GOOD = member("good.txt", "fine")

    @pytest.mark.parametrize(
        ("bad", "reason"),
        [
            (member("/etc/evil.txt", "x"), "/etc/evil.txt: unsafe name or type (an absolute path)"),
            (member("a/../../evil.txt", "x"), "a path that leaves the archive"),
            (member("..", "x"), "a path that leaves the archive"),
            (member("l.txt", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "(a link)"),
            (member("l.txt", type=tarfile.LNKTYPE, linkname="good.txt"), "(a link)"),
            (member("latest", type=tarfile.SYMTYPE, linkname="good.txt"), "(a link)"),
            (member("d.txt", type=tarfile.CHRTYPE), "d.txt: unsafe name or type (a device"),
            (member("d.txt", type=tarfile.FIFOTYPE), "(a device or pipe)"),
            (member("b.txt", b"caf\xe9"), "b.txt: not UTF-8 (byte 3)"),
            (member("b.json", "{"), "b.json: not JSON (Expecting property name"),
            (member("b.json", "[" * 100_000), "b.json: not JSON (maximum recursion"),
            (member("b.json", b"\xff\xfe"), "b.json: not UTF-8"),
            (member("b.png", "no picture"), "b.png: not a picture (cannot identify image file)"),
            (member("b.npy", "no array"), "b.npy: not an array (the format"),
            (member("b.npy", array([1.0, 2.0])[:-1]), "b.npy: not an array ("),
            (member("b.npy", array(["text"])), "b.npy: not an array of numbers (<U4"),
            (member("b.npy", array([1 + 2j])), "b.npy: not an array of numbers (complex128"),
            (member("b.npy", array([{}], dtype=object)), "b.npy: not an array (Object arrays"),
        ],
    )
    def test_are_set_aside(self, tmp_path, bad, reason):
        before = sorted(tmp_path.iterdir())
        frame = read(pack(tmp_path / "a.tar", self.GOOD, bad, member("next.txt", "too")))
        assert frame["id"].to_list() == ["good", None, "next"]
        assert frame["txt"].to_list() == ["fine", None, "too"]
        assert reason in frame["_unparsed"][1]
        assert frame["_unparsed"].null_count() == 2
        assert sorted(tmp_path.iterdir()) == [*before, tmp_path / "a.tar"]  # nothing was unpacked

    def test_a_pickle_is_never_loaded(self, tmp_path):
        class Trap:
            def __reduce__(self):
                return (os.mkdir, (str(tmp_path / "trapped"),))

        trap = member("b.npy", array([Trap()], dtype=object))
        frame = read(pack(tmp_path / "a.tar", self.GOOD, trap))
        assert "Object arrays" in frame["_unparsed"][1]
        assert not (tmp_path / "trapped").exists()

    def test_a_sample_with_one_bad_member_is_bad(self, tmp_path):
        parts = [member("s.txt", "x"), member("s.png", "no"), member("s.cls", "1")]
        frame = read(pack(tmp_path / "a.tar", *parts, self.GOOD))
        assert frame["id"].to_list() == [None, "good"]
        assert frame["txt"].to_list() == [None, "fine"]
        assert frame["_unparsed"][0].startswith("s.png: not a picture")

    def test_the_first_of_many_faults_is_told(self, tmp_path):
        links = [
            member(f"s.{end}", type=tarfile.SYMTYPE, linkname="/etc/passwd") for end in ("a", "b")
        ]
        frame = read(pack(tmp_path / "a.tar", *links, self.GOOD))
        assert frame["_unparsed"].to_list() == ["s.a: unsafe name or type (a link)", None]

    def test_samples_that_grow(self, tmp_path, monkeypatch):
        monkeypatch.setattr(webdataset, "_MOST_DECODED", 1000)
        parts = [member("s.png", picture([0] * 600)), member("s.2.png", picture([0] * 600))]
        frame = read(pack(tmp_path / "a.tar", *parts, self.GOOD))
        assert frame["_unparsed"][0].startswith("s.2.png: its sample takes more than")

    def test_two_members_for_one_column(self, tmp_path):
        parts = [member("s.png", picture([1])), member("s.gif", picture([1]))]
        frame = read(pack(tmp_path / "a.tar", *parts, self.GOOD))
        assert frame["_unparsed"][0] == "s.gif: a second member that gives 'image'"

    def test_giants(self, tmp_path, monkeypatch):
        monkeypatch.setattr(webdataset, "MOST_BYTES", 1000)
        large = [member("l.txt", "x" * 1001), member("m.txt", "x" * 600)]
        rest = [member("m.caption", "x" * 600), member("n.mp3", "x" * 5000), member("o.txt", "ok")]
        frame = read(pack(tmp_path / "a.tar", *large, *rest))
        assert frame["id"].to_list() == [None, None, None, "o"]
        assert frame["_unparsed"][0] == "l.txt: its sample is larger than 0 MiB"
        assert frame["_unparsed"][1].startswith("m.caption: its sample is larger")
        assert frame["_unparsed"][2] == "n: no member with an ending that is read"

    def test_sparse_giants(self, tmp_path):
        """A header may state 100 GiB of zeros that take no room in the archive."""
        header, _ = member("s.txt")
        header.pax_headers = {
            "GNU.sparse.major": "0",
            "GNU.sparse.minor": "1",
            "GNU.sparse.map": "0,0",
            "GNU.sparse.size": str(100 * 2**30),
        }
        frame = read(pack(tmp_path / "a.tar", (header, b""), self.GOOD))
        assert frame["_unparsed"][0] == "s.txt: its sample is larger than 256 MiB"

    def test_names_that_are_no_text(self, tmp_path):
        name = b"caf\xe9.txt".decode("utf-8", "surrogateescape")
        options = {"format": tarfile.GNU_FORMAT, "errors": "surrogateescape"}
        frame = read(pack(tmp_path / "a.tar", member(name, "x"), **options))
        assert frame["id"].to_list() == [r"caf\udce9"]

    def test_too_many_fields(self, tmp_path):
        members = (member(f"{i}.json", json.dumps({f"f{i}": 1})) for i in range(1001))
        with pytest.raises(SourceError, match=r"^demo: shard a: .*more than 1000 different fields"):
            read(pack(tmp_path / "a.tar", *members))


class TestDamagedArchives:
    @pytest.fixture
    def path(self, tmp_path):
        rng = np.random.default_rng(0)
        return pack(
            tmp_path / "a.tar", *(member(f"{i}.txt", rng.bytes(700).hex()) for i in range(9))
        )

    def refused(self, path: Path, reason: str) -> None:
        config = Source(folder="/x", format="webdataset")
        found = webdataset.blocks(path, config=config, where="demo: shard a")
        # Before the first block, so that nothing of a broken archive has been taken.
        with pytest.raises(SourceError, match=rf"^demo: shard a: .*{reason}.*(?i:again)"):
            next(found)

    # Two blocks for the header, four for the content: within a content, within a header, between.
    @pytest.mark.parametrize(
        ("kept", "reason"),
        [
            (512 * 2, "unexpected end of data"),
            (512 * 4 + 100, "without the mark of its end"),
            (512 * 8, "without the mark of its end"),
            (512 * 36, "without the mark of its end"),
        ],
    )
    def test_cut(self, path, kept, reason):
        path.write_bytes(path.read_bytes()[:kept])
        self.refused(path, f"cannot read .*a.tar to its end: .*{reason}")

    def test_a_broken_header_is_not_the_end(self, path):
        data = bytearray(path.read_bytes())
        data[512 * 8 + 3] ^= 0xFF
        path.write_bytes(data)
        self.refused(path, "a broken header")

    def test_two_archives_in_one_file(self, path):
        path.write_bytes(path.read_bytes() * 2)
        self.refused(path, "goes on after the mark of its end")

    def test_gzip(self, path):
        packed = path.with_suffix(".tgz")
        whole = gzip.compress(path.read_bytes())
        packed.write_bytes(whole)
        assert read(packed).height == 9
        packed.write_bytes(whole[: len(whole) // 2])
        self.refused(packed, "cannot read")
        packed.write_bytes(whole[:-8] + bytes(4) + whole[-4:])
        self.refused(packed, "CRC")
        packed.write_bytes(whole[:-8])
        self.refused(packed, "end-of-stream")

    def test_giant_headers(self, path, tmp_path):
        attributes = {"comment": "x" * 2**21}
        header, content = member("a.txt", "x")
        header.pax_headers = attributes
        self.refused(pack(tmp_path / "b.tar", (header, content)), "a name or header of 20")

    def test_negative_sizes(self, path):
        data = bytearray(path.read_bytes())
        data[124:136] = b"\xff" * 12  # -1 in base 256
        data[148:156] = b" " * 8
        data[148:156] = b"%06o\0 " % sum(data[:512])
        path.write_bytes(data)
        self.refused(path, "negative size")

    def test_what_is_no_archive(self, tmp_path):
        for content in (b"", b"plain text" * 100, bytes(1024)):
            (tmp_path / "a.tar").write_bytes(content)
            with pytest.raises(SourceError, match=r"^demo: shard a: .*a\.tar"):
                read(tmp_path / "a.tar")
        with pytest.raises(SourceError, match="cannot read"):
            read(tmp_path / "none.tar")

    def test_without_a_usable_sample(self, tmp_path):
        path = pack(tmp_path / "a.tar", member("a.png", "x"), member("../b.txt", "x"))
        with pytest.raises(SourceError, match=r"none of the 2 rows of .*a.png: not a picture"):
            read(path)
        with pytest.raises(SourceError, match=r"a.tar has no rows"):
            read(pack(path, member("README", "x")))


def test_pillow_is_named_when_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    text = pack(tmp_path / "a.tar", member("a.txt", "x"))
    assert read(text).height == 1
    path = pack(tmp_path / "b.tar", member("a.png", picture([1])))
    with pytest.raises(SourceError, match=r"^demo: shard a: .*pip install 'curation\[images\]'"):
        read(path)
