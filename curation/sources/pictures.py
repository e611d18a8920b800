"""What sources of pictures share: decoding, columns of lists, blocks of a size.

Every picture becomes 8-bit grey or RGB, whatever it was stored as:

=================  ================================================================
stored as          becomes
=================  ================================================================
transparent        what one sees on white paper
palette, CMYK, 1   their colours (a two-coloured picture has 0 and 255)
16 bits            0..65535 scaled to 0..255, alike for all pictures
32 bits or floats  the picture's own least and greatest value become 0 and 255
                   (such files state no range); all 0 if it is one value throughout
animated           its first frame
=================  ================================================================

The orientation a camera noted (EXIF) is applied.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from curation.config import Source
from curation.sources.base import SourceError
from curation.sources.tables import UNPARSED

if TYPE_CHECKING:
    from PIL import Image as Pillow

T = TypeVar("T")

ENDINGS = frozenset(
    ["png", "jpg", "jpeg", "webp", "bmp", "gif", "tif", "tiff", "ppm", "pgm", "pbm"]
)
"""Endings of pictures, without the dot, in lower case."""

MOST_BYTES = 256 * 2**20
"""The largest file that is taken for one picture, one text or one array."""

MOST_PIXELS = 2**28 // 3
"""The most pixels a picture may have: a quarter of a GiB as RGB, what Pillow warns from."""

# Raster formats only: Pillow hands EPS to Ghostscript, which runs the programs inside.
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
_ORIENTATION = 0x0112


class PictureError(Exception):
    """These bytes are no picture that can be used; the message is the reason, nothing else."""


def need_pillow(where: str) -> None:
    """Refuse to go on without Pillow.

    Raises
    ------
    SourceError
        If it is not installed; the message names the extra.
    """
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise SourceError(
            f"{where}: pictures are read with Pillow, which is not installed. "
            "Install it: pip install 'curation[images]'."
        ) from error


def decode(data: bytes, *, config: Source) -> NDArray[np.uint8]:
    """Return a picture's pixels.

    Parameters
    ----------
    data : bytes
        The picture's file: PNG, JPEG, WebP, BMP, GIF, TIFF, PPM or PGM.
    config : Source
        `image_mode`, and `image_size` (width, height): the picture is scaled to exactly this size
        by Lanczos' filter, after a coarse reduction of much larger ones; its proportions are not
        kept.

    Returns
    -------
    ndarray
        uint8 of shape (height, width), or (height, width, 3) for RGB.

    Raises
    ------
    PictureError
        If it is not a picture, is damaged, empty, or has more than `MOST_PIXELS` pixels.
    """
    from PIL import Image, UnidentifiedImageError

    if len(data) > MOST_BYTES:
        raise PictureError(f"larger than {MOST_BYTES // 2**20} MiB")
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            return _pixels(image, config=config)
    except (MemoryError, PictureError):  # too little memory says nothing about the picture
        raise
    except UnidentifiedImageError as error:  # its own text holds an address in memory
        raise PictureError("not a picture (cannot identify image file)") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PictureError(f"more than {MOST_PIXELS} pixels") from error
    except Exception as error:  # hostile bytes make decoders raise nearly anything
        reason = str(error).split("\n")[0] or type(error).__name__
        raise PictureError(f"the picture cannot be decoded ({reason})") from error


def _pixels(image: Pillow.Image, *, config: Source) -> NDArray[np.uint8]:
    from PIL import Image

    width, height = image.size
    if width * height > MOST_PIXELS:
        raise PictureError(f"{width} x {height}, more than {MOST_PIXELS} pixels")
    if config.image_size:
        # JPEG only: decoded at an eighth, a quarter or a half where that is still twice as large.
        # A square, since the picture may yet be turned.
        image.draft(None, (2 * max(config.image_size), 2 * max(config.image_size)))
    image.load()
    orientation = image.getexif().get(_ORIENTATION)
    turned = _upright(_eight_bits(image, mode=config.image_mode), orientation)
    if config.image_size and turned.size != tuple(config.image_size):
        turned = turned.resize(config.image_size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    return np.array(turned, dtype=np.uint8)


def _upright(image: Pillow.Image, orientation: object) -> Pillow.Image:
    from PIL import Image

    turn = Image.Transpose
    turns: dict[object, Pillow.Transpose] = {
        2: turn.FLIP_LEFT_RIGHT,
        3: turn.ROTATE_180,
        4: turn.FLIP_TOP_BOTTOM,
        5: turn.TRANSPOSE,
        6: turn.ROTATE_270,
        7: turn.TRANSVERSE,
        8: turn.ROTATE_90,
    }
    return image.transpose(turns[orientation]) if orientation in turns else image


def _eight_bits(image: Pillow.Image, *, mode: str) -> Pillow.Image:
    from PIL import Image

    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_grey(image)).convert(mode)
    if image.has_transparency_data:
        paper = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(paper, image.convert("RGBA"))
    return image.convert(mode)


def _grey(image: Pillow.Image) -> NDArray[np.uint8]:
    """Return (height, width) uint8 from pixels of 16 bits, 32 bits or floats."""
    values = np.asarray(image)
    # Pillow holds the 16 bits of a PGM in 32.
    if image.mode.startswith("I;16") or image.format == "PPM":
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if not np.isfinite(values).all():
        raise PictureError("a picture with values that are not finite")
    least, greatest = float(values.min()), float(values.max())
    if least == greatest:
        return np.zeros(values.shape, dtype=np.uint8)
    # Float64: the difference of two finite float32 need not be a finite float32.
    scaled = (values.astype(np.float64) - least) * (255.0 / (greatest - least))
    return np.rint(scaled).astype(np.uint8)


def lists(name: str, rows: Sequence[NDArray[Any] | None], *, inner: Any) -> pl.Series:
    """Return a List column; each array is one row, flattened row by row, None is null.

    Parameters
    ----------
    name : str
        Name of the column.
    rows : sequence of ndarray or None
        Arrays of any shape.
    inner : polars data type
        Type of the values, e.g. ``pl.UInt8``.
    """
    sizes = [0 if row is None else row.size for row in rows]
    offsets = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)
    filled = [row.reshape(-1) for row in rows if row is not None]
    flat = np.concatenate(filled) if filled else np.empty(0, dtype=np.uint8)
    absent = pa.array([row is None for row in rows], type=pa.bool_())
    made = pa.LargeListArray.from_arrays(offsets, pa.array(flat), mask=absent)
    return pl.Series(name, made).cast(pl.List(inner))


def readable(text: str) -> str:
    r"""Return `text` as it can be stored: what is no Unicode character is written as ``\udc..``."""
    return text.encode("utf-8", "backslashreplace").decode()


def in_blocks(rows: Iterable[T], *, size: Callable[[T], int], config: Source) -> Iterator[list[T]]:
    """Gather rows until they have about ``config.block_mib`` MiB; `size` gives a row's bytes."""
    gathered: list[T] = []
    held, most = 0, config.block_mib * 2**20
    for row in rows:
        gathered.append(row)
        held += size(row)
        if held >= most:
            yield gathered
            gathered, held = [], 0
    if gathered:
        yield gathered


def some_usable(
    blocks: Iterable[pl.DataFrame], *, path: Path, where: str
) -> Iterator[pl.DataFrame]:
    """Pass blocks on; refuse a shard in which every row was set aside.

    Raises
    ------
    SourceError
        After the last block, if no row of any block could be used.
    """
    rows, usable, first = 0, 0, ""
    for block in blocks:
        wrong = block[UNPARSED].drop_nulls()
        if not first and len(wrong):
            first = f" The first: {wrong[0]}."
        rows += block.height
        usable += block.height - len(wrong)
        yield block
    if not usable:
        found = f"none of the {rows} rows of {path} can be used" if rows else f"{path} has no rows"
        raise SourceError(
            f"{where}: {found}.{first} "
            "Repair or remove it, or correct `folder`, `pattern` and `format` of the source."
        )
