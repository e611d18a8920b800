"""A published subset as files that a trainer reads, with its weights and a data card.

========================  =========================================================================
format                    what is written
========================  =========================================================================
``parquet``, ``jsonl``    one file, and the card beside it (``subset.card.md``)
``huggingface``           a folder for ``datasets.load_from_disk``, the card in its ``README.md``
``webdataset``            a folder of tar archives, the card in its ``README.md``
========================  =========================================================================
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from curation.config import CuratedDatasetConfig
from curation.exports.card import card_of
from curation.exports.folders import ExportError, write_huggingface, write_webdataset
from curation.sources import stored_columns
from curation.subset import FORMATS, SUBSET_FILE, format_of, published, save

__all__ = ["ALL_FORMATS", "ExportError", "export"]

FOLDERS = {"huggingface": write_huggingface, "webdataset": write_webdataset}
ALL_FORMATS = (*FORMATS, *FOLDERS)


def export(
    config: CuratedDatasetConfig,
    out: Path,
    *,
    format: str | None = None,
    store: Path | None = None,
    overwrite: bool = False,
) -> tuple[int, Path]:
    """Write the published subset of a data set, and its data card.

    A file or folder appears whole or not at all; the card of a file is written after it.

    Parameters
    ----------
    config
        The data set.
    out
        The file to write, or for ``huggingface`` and ``webdataset`` the folder.
    format
        One of ``ALL_FORMATS``; left out, that of the file's ending.
    store
        The store's folder; left out, ``CURATION_STORE`` or the project's ``data/``.
    overwrite
        Whether a folder that holds something is replaced. (A file always is.)

    Returns
    -------
    rows
        Number of rows written.
    card
        Where the data card is.

    Raises
    ------
    curation.store.StoreError
        If nothing was published yet, or it is damaged.
    ValueError
        If the format can't be told, or contradicts the ending.
    ExportError
        If `out` is in the way, or a column has no place in the format.
    """
    import polars as pl

    artifact = published(config.name, store=store)
    frame = pl.read_parquet(artifact.path(SUBSET_FILE))
    if format not in FOLDERS:
        kind = format_of(out, format)
        if out.is_dir():
            raise ExportError(f"{out} is a folder; {kind} is one file, name it")
        card = out.with_suffix(".card.md")
        save(frame, out, kind)
        card.write_text(card_of(config, artifact, frame, kind, out.name))
        return len(frame), card
    if out.exists() and not (out.is_dir() and (overwrite or not any(out.iterdir()))):
        remedy = "give --overwrite, or another --out" if out.is_dir() else "give another --out"
        raise ExportError(f"{out} is there already; {remedy}")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".export-") as scratch:
        folder = Path(scratch) / "export"
        folder.mkdir()
        FOLDERS[format](frame, folder, stored_columns(config.columns))
        (folder / "README.md").write_text(card_of(config, artifact, frame, format, out.name))
        if out.exists():
            out.rename(Path(scratch) / "before")  # removed with the scratch folder
        shutil.move(folder, out)
    return len(frame), out / "README.md"
