"""Folders of pictures."""

from __future__ import annotations

import io
import os
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from curation.config import Source
from curation.sources import SourceError, images, pictures

SCHEMA = {
    "id": pl.String,
    "image": pl.List(pl.UInt8),
    "width": pl.UInt32,
    "height": pl.UInt32,
    "label": pl.String,
    "_unparsed": pl.String,
}


def config(**fields) -> Source:
    return Source(folder="/pictures", format="images", **fields)


def read(shard: Path, **fields) -> pl.DataFrame:
    found = list(images.blocks(shard, config=config(**fields), where="demo: shard a"))
    assert all(block.schema == SCHEMA for block in found)
    return pl.concat(found)


def encoded(image: Image.Image, format: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def png_header(width: int, height: int) -> bytes:
    """Return a PNG that states a size, and holds hardly anything."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        check = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(bytes(64)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


def grey(*rows: list[int]) -> Image.Image:
    return Image.fromarray(np.array(rows, dtype=np.uint8))


def put(folder: Path, name: str, data: bytes | Image.Image) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(data) if isinstance(data, Image.Image) else data)
    return path


def pixels(data: bytes, **fields) -> list:
    return pictures.decode(data, config=config(**fields)).tolist()


def test_labels_are_the_first_folder_and_other_files_are_ignored(tmp_path):
    shard = tmp_path / "march"
    put(shard, "cat/b.png", grey([1, 2, 3], [4, 5, 6]))
    put(shard, "cat/old/a.PNG", grey([7]))
    put(shard, "zero.png", grey([9]))
    for name in ("notes.txt", "cat/Thumbs.db", ".hidden.png", ".trash/x.png", "png"):
        put(shard, name, b"nothing")
    frame = read(shard)
    assert frame["id"].to_list() == ["cat/b.png", "cat/old/a.PNG", "zero.png"]
    assert frame["label"].to_list() == ["cat", "cat", "march"]
    assert frame["image"].to_list() == [[1, 2, 3, 4, 5, 6], [7], [9]]
    assert frame["width"].to_list() == [3, 1, 1]
    assert frame["height"].to_list() == [2, 1, 1]
    assert frame["_unparsed"].null_count() == 3


def test_rgb_is_flattened_row_by_row(tmp_path):
    colours = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    put(tmp_path, "a.png", Image.fromarray(colours))
    assert read(tmp_path, image_mode="RGB")["image"].to_list() == [list(range(12))]


def test_blocks_are_bounded_and_alike(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (512, 512), dtype=np.uint8)
    for i in range(9):
        put(tmp_path, f"{i}.bmp", encoded(Image.fromarray(noise + np.uint8(i)), "BMP"))
    put(tmp_path, "3a.png", b"broken")  # of a type with the others, though it is all null
    found = list(images.blocks(tmp_path, config=config(block_mib=1), where="demo: shard a"))
    assert [block.height for block in found] == [4, 5, 1]
    assert all(block.schema == SCHEMA for block in found)
    kept = pl.concat(found)["image"].drop_nulls()
    assert kept[8].to_list() == (noise + np.uint8(8)).reshape(-1).tolist()


class TestModes:
    def test_transparency_is_seen_on_white(self):
        clear = np.array([[[200, 0, 0, 0], [200, 0, 0, 255]]], dtype=np.uint8)
        image = Image.fromarray(clear)
        assert pixels(encoded(image), image_mode="RGB") == [[[255, 255, 255], [200, 0, 0]]]
        faint = Image.fromarray(np.array([[[0, 0], [0, 255]]], dtype=np.uint8))
        assert faint.mode == "LA"
        assert pixels(encoded(faint)) == [[255, 0]]

    def test_palettes(self):
        image = Image.new("P", (3, 1))
        image.putpalette([10, 20, 30, 200, 100, 50, 1, 2, 3])
        image.putdata([0, 1, 2])
        plain, clear = encoded(image), encoded(image, transparency=1)
        assert pixels(plain, image_mode="RGB") == [[[10, 20, 30], [200, 100, 50], [1, 2, 3]]]
        assert pixels(clear, image_mode="RGB") == [[[10, 20, 30], [255] * 3, [1, 2, 3]]]

    def test_two_colours_and_cmyk(self):
        two = Image.fromarray(np.array([[True, False]]))
        assert two.mode == "1"
        assert pixels(encoded(two)) == [[255, 0]]
        cyan = Image.new("CMYK", (1, 1), (255, 0, 0, 0))
        assert pixels(encoded(cyan, "TIFF"), image_mode="RGB") == [[[0, 255, 255]]]

    @pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
    def test_sixteen_bits_have_one_scale(self, format):
        image = Image.fromarray(np.array([[0, 257, 30000], [128, 129, 40000]], dtype=np.uint16))
        assert pixels(encoded(image, format)) == [[0, 1, 117], [0, 1, 156]]
        assert pixels(encoded(image, format), image_mode="RGB")[0][1] == [1, 1, 1]

    @pytest.mark.parametrize("dtype", [np.int32, np.float32])
    def test_wide_values_are_scaled_by_their_range(self, dtype):
        image = Image.fromarray(np.array([[-1000, 0, 1000]], dtype=dtype))
        assert pixels(encoded(image, "TIFF")) == [[0, 128, 255]]
        level = Image.fromarray(np.full((1, 2), 7, dtype=dtype))
        assert pixels(encoded(level, "TIFF")) == [[0, 0]]

    def test_values_without_size(self):
        image = Image.fromarray(np.array([[1.0, np.nan]], dtype=np.float32))
        with pytest.raises(pictures.PictureError, match="not finite"):
            pixels(encoded(image, "TIFF"))

    @pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
    def test_the_first_frame_of_many(self, format):
        options = {"lossless": True} if format == "WEBP" else {}
        frames = [grey([value] * 4, [value] * 4) for value in (30, 90, 200)]
        data = encoded(frames[0], format, save_all=True, append_images=frames[1:], **options)
        with Image.open(io.BytesIO(data)) as image:
            assert image.n_frames == 3
        assert pixels(data) == [[30] * 4] * 2

    @pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF"])
    @pytest.mark.parametrize(
        ("orientation", "expected"),
        [
            (1, [[0, 50, 100], [150, 200, 250]]),
            (2, [[100, 50, 0], [250, 200, 150]]),
            (3, [[250, 200, 150], [100, 50, 0]]),
            (4, [[150, 200, 250], [0, 50, 100]]),
            (5, [[0, 150], [50, 200], [100, 250]]),
            (6, [[150, 0], [200, 50], [250, 100]]),
            (7, [[250, 100], [200, 50], [150, 0]]),
            (8, [[100, 250], [50, 200], [0, 150]]),
            (9, [[0, 50, 100], [150, 200, 250]]),
        ],
    )
    def test_orientation(self, format, orientation, expected):
        exif = Image.Exif()
        exif[0x0112] = orientation
        options = {"lossless": True} if format == "WEBP" else {}
        image = grey([0, 50, 100], [150, 200, 250])
        assert pixels(encoded(image, format, exif=exif, **options)) == expected


class TestScaling:
    def test_to_the_size_asked_for(self, tmp_path):
        put(tmp_path, "a.png", Image.new("L", (40, 9), 77))
        put(tmp_path, "b.jpg", encoded(Image.new("L", (3, 5), 77), "JPEG"))
        frame = read(tmp_path, image_size=(4, 6))
        assert frame["image"].to_list() == [[77] * 24] * 2
        assert frame["width"].to_list() == [4, 4]
        assert frame["height"].to_list() == [6, 6]

    def test_averages_what_it_shrinks(self):
        checks = np.indices((64, 64)).sum(axis=0) % 2 * 255
        small = np.array(
            pixels(encoded(Image.fromarray(checks.astype(np.uint8))), image_size=(8, 8))
        )
        assert np.abs(small - 127.5).max() < 8

    def test_photographs_are_decoded_coarsely_but_no_coarser(self, monkeypatch):
        sizes, original = [], pictures._eight_bits

        def watched(image, *, mode):
            sizes.append(image.size)
            return original(image, mode=mode)

        monkeypatch.setattr(pictures, "_eight_bits", watched)
        stripes = np.tile(np.repeat([0, 255], 16), (800, 25)).astype(np.uint8)
        image = Image.fromarray(stripes)
        one = np.array(pixels(encoded(image, "JPEG", quality=95), image_size=(100, 100)), float)
        two = np.array(pixels(encoded(image, "PNG"), image_size=(100, 100)), float)
        assert sizes == [(200, 200), (800, 800)]
        assert np.abs(one - two).mean() < 8

    def test_a_turned_photograph_is_scaled_upright(self):
        exif = Image.Exif()
        exif[0x0112] = 6
        wide = np.zeros((1200, 1600), dtype=np.uint8)
        wide[:, :800] = 255  # left half; upright, the upper half
        data = encoded(Image.fromarray(wide), "JPEG", exif=exif)
        small = np.array(pixels(data, image_size=(6, 8)))
        assert small.shape == (8, 6)
        assert small[:3].min() > 240
        assert small[5:].max() < 15


class TestWrongPictures:
    @pytest.fixture
    def shard(self, tmp_path):
        put(tmp_path / "s", "good.png", grey([1, 2], [3, 4]))
        return tmp_path / "s"

    @pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
    @pytest.mark.parametrize(
        ("name", "data", "reason"),
        [
            ("a.png", b"plain text", "not a picture (cannot identify image file)"),
            ("a.jpg", b"", "not a picture (cannot identify image file)"),
            ("a.png", encoded(Image.effect_noise((99, 99), 9))[:-999], "cannot be decoded"),
            (
                "a.jpg",
                encoded(Image.effect_noise((99, 99), 9), "JPEG")[:900],
                "the picture cannot be decoded (image file is truncated",
            ),
            ("a.png", png_header(60000, 60000), "a.png: more than 89478485 pixels"),
            ("a.png", png_header(12000, 9000), "12000 x 9000, more than 89478485 pixels"),
            ("a.png", png_header(0, 5), "not a picture (cannot identify image file)"),
            ("a.png", encoded(Image.new("RGB", (9, 9)), "EPS"), "not a picture"),
            ("a.tif", encoded(Image.new("LAB", (2, 2)), "TIFF"), "cannot be decoded"),
        ],
        ids=["text", "empty", "cut", "cut jpeg", "bomb", "large", "no pixels", "eps", "lab"],
    )
    def test_become_rows_with_a_reason(self, shard, name, data, reason):
        put(shard, f"x/{name}", data)
        frame = read(shard)
        assert frame["id"].to_list() == ["good.png", None]
        text = frame["_unparsed"][1]
        assert text.startswith(f"x/{name}: ")
        assert reason in text
        assert "0x" not in text  # no address in memory: the reason is the same in every run
        assert frame.row(1)[:5] == (None,) * 5
        assert frame["image"][0].to_list() == [1, 2, 3, 4]

    def test_links(self, shard, tmp_path):
        outside = put(tmp_path, "secret/x.png", grey([9]))
        (shard / "a.png").symlink_to(outside)
        (shard / "b").symlink_to(outside.parent, target_is_directory=True)
        (shard / "c.png").symlink_to("good.png")
        (shard / "d.png").symlink_to("nowhere")
        (shard / "e.png").symlink_to("e.png")
        (shard / "f").symlink_to(".", target_is_directory=True)
        frame = read(shard)
        good = frame.filter(pl.col("_unparsed").is_null())
        assert good["id"].to_list() == ["c.png", "good.png"]
        assert frame["_unparsed"].drop_nulls().to_list() == [
            "a.png: leads outside the folder",
            "b: leads outside the folder",
            "d.png: leads to nothing",
            "e.png: leads to nothing",
            "f: not a file (links to folders are not followed)",
        ]

    def test_pipes_and_giants(self, shard, monkeypatch):
        os.mkfifo(shard / "p.png")
        with (shard / "q.png").open("wb") as file:
            file.truncate(pictures.MOST_BYTES + 1)
        opened, read_bytes = [], Path.read_bytes

        def watched(path):
            opened.append(path.name)
            return read_bytes(path)

        monkeypatch.setattr(Path, "read_bytes", watched)
        reasons = read(shard)["_unparsed"].to_list()
        assert reasons[1].startswith("p.png: not a file")
        assert reasons[2] == "q.png: larger than 256 MiB"
        assert opened == ["good.png"]

    def test_giants_out_of_other_files(self, monkeypatch):
        monkeypatch.setattr(pictures, "MOST_BYTES", 10)
        with pytest.raises(pictures.PictureError, match="larger than"):
            pixels(encoded(grey([1])))

    def test_names_that_are_no_text(self, shard):
        raw = os.fsencode(shard) + b"/caf\xe9.png"
        Path(os.fsdecode(raw)).write_bytes(encoded(grey([5])))
        assert sorted(read(shard)["id"]) == [r"caf\udce9.png", "good.png"]

    def test_too_little_memory_is_not_the_pictures_fault(self, shard, monkeypatch):
        def exhausted(*args, **options):
            raise MemoryError

        monkeypatch.setattr(Image, "open", exhausted)
        with pytest.raises(MemoryError):
            read(shard)

    def test_a_file_that_cannot_be_read_fails_the_shard(self, shard, monkeypatch):
        def refused(path):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "read_bytes", refused)
        with pytest.raises(SourceError, match=r"demo: shard a: cannot read .*good.png.*Let the"):
            read(shard)


def test_shards_without_a_usable_picture(tmp_path):
    put(tmp_path / "a", "notes.txt", b"no picture")
    with pytest.raises(SourceError, match=r"^demo: shard a: .*/a has no rows\. Repair"):
        read(tmp_path / "a")
    put(tmp_path / "a", "x.png", b"broken")
    with pytest.raises(SourceError, match=r"none of the 1 rows of .*The first: x.png: not a pict"):
        read(tmp_path / "a")
    with pytest.raises(SourceError, match="there is no folder"):
        read(tmp_path / "b")


def test_pillow_is_named_when_it_is_missing(tmp_path, monkeypatch):
    put(tmp_path, "a.png", grey([1]))
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(SourceError, match=r"demo: shard a: .*pip install 'curation\[images\]'"):
        read(tmp_path)


class TestShardFolders:
    def test_every_visible_folder_directly_below(self, tmp_path):
        for name in ("b/cats", "a-1", "a-2", ".git"):
            (tmp_path / name).mkdir(parents=True)
        put(tmp_path, "x.png", grey([1]))
        (tmp_path / "c").symlink_to("b", target_is_directory=True)

        def names(pattern):
            found = images.shard_folders(tmp_path, pattern=pattern, dataset="demo")
            return [path.name for path in found]

        assert names("**/*") == ["a-1", "a-2", "b", "c"]
        assert names("a-*") == ["a-1", "a-2"]
        assert names("*/cats") == []

    def test_what_is_refused(self, tmp_path):
        def found(folder, pattern="**/*"):
            return images.shard_folders(folder, pattern=pattern, dataset="demo")

        (tmp_path / "in").mkdir()
        (tmp_path / "other").mkdir()
        assert found(tmp_path / "in") == []
        (tmp_path / "in" / "x").symlink_to(tmp_path / "other", target_is_directory=True)
        with pytest.raises(SourceError, match=r"^demo: .*outside the folder.*Copy it"):
            found(tmp_path / "in")
        with pytest.raises(SourceError, match=r"^demo: there is no folder"):
            found(tmp_path / "nowhere")
        with pytest.raises(SourceError, match=r"^demo: source.pattern '/abs' is not a glob"):
            found(tmp_path / "in", "/abs")
