"""Every plot as PNG bytes, and how to put one into Markdown.

About 640 by 360 pixels, at most 60 kB, without dates: the same data gives the same bytes.
"""

from __future__ import annotations

import base64
import re

from curation.reporting.distributions import (
    category_counts,
    cluster_overview,
    length_histogram,
    score_distribution,
    weight_histogram,
)
from curation.reporting.maps import embedding_map, image_grid, project_2d
from curation.reporting.outcomes import class_shares, comparison, estimate_errors
from curation.reporting.text import plain

__all__ = [
    "category_counts",
    "class_shares",
    "cluster_overview",
    "comparison",
    "embedding_map",
    "estimate_errors",
    "image_grid",
    "length_histogram",
    "markdown_image",
    "project_2d",
    "score_distribution",
    "weight_histogram",
]

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def base64_png(png: bytes) -> str:
    """Return a PNG as base64 text.

    Raises
    ------
    ValueError
        When the bytes are not a PNG.
    """
    if not png.startswith(SIGNATURE):
        raise ValueError("the picture is not a PNG: it lacks the PNG signature")
    return base64.b64encode(png).decode("ascii")


def markdown_image(png: bytes, alt: str) -> str:
    """Return Markdown that shows a PNG without any file or network.

    Parameters
    ----------
    png
        The picture.
    alt
        What it shows, for readers who do not see it; Markdown marks are taken out.

    Raises
    ------
    ValueError
        When the bytes are not a PNG.
    """
    words = plain(re.sub(r"[^\w\s.,;:%+'=/-]", " ", plain(alt)), limit=120)
    # A bare address would become a link in some renderers, even in here.
    words = re.sub(r"(?i)://|www\.|_", " ", words)
    return f"![{' '.join(words.split())}](data:image/png;base64,{base64_png(png)})"
