"""What `select` is given, checked once and brought into one form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from curation import clustering
from curation.clustering.spaces import class_codes
from curation.sampling import permanent_random_numbers

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
Vectors = NDArray[np.float32]
Score = Callable[[Rows], ArrayLike]


@dataclass(frozen=True)
class Labels:
    """Classes, or a number to predict, of every row.

    Attributes
    ----------
    classes
        Sorted; empty for a number.
    codes
        (n,) int64 class of each row; for a number all 0.
    numbers
        (n,) float64 standardised number; empty for classes.
    centre, spread
        What numbers were standardised by.
    """

    classes: tuple[str, ...]
    codes: Rows
    numbers: Floats
    centre: float = 0.0
    spread: float = 1.0

    def targets(self, rows: slice | Rows) -> Vectors:
        """Return (m, C) one-hot classes, or (m, 1) standardised numbers."""
        if not self.classes:
            return self.numbers[rows, None].astype(np.float32)
        codes = self.codes[rows]
        found = np.zeros((len(codes), len(self.classes)), dtype=np.float32)
        found[np.arange(len(codes)), codes] = 1.0
        return found


def read_labels(labels: ArrayLike | None, n: int, *, like: Labels | None = None) -> Labels | None:
    """Return labels as classes, or as numbers if they are floating-point.

    Parameters
    ----------
    labels
        (n,) classes or numbers.
    n
        Number of rows.
    like
        Labels of an earlier selection, whose classes and unit are kept.

    Raises
    ------
    ValueError
        If there are not n, one is missing, or they are not of the kind of `like`.
    """
    if labels is None:
        return None
    raw = _of_length(labels, n, "labels")
    if raw.dtype.kind == "f":
        if not np.isfinite(raw).all():
            raise ValueError(f"label of row {_first(~np.isfinite(raw))} is not a finite number")
        if like is not None and like.classes:
            raise ValueError(
                "the labels of the previous selection were classes, these are numbers; "
                "select anew, without `previous`"
            )
        wide = raw.astype(np.float64)
        centre, spread = float(wide.mean()), float(wide.std()) or 1.0
        if like is not None:
            centre, spread = like.centre, like.spread
        numbers = (wide - centre) / spread
        return Labels((), np.zeros(n, dtype=np.int64), numbers, centre, spread)
    if raw.dtype.kind == "O":
        missing = np.array([v is None or v != v for v in raw.tolist()])  # NaN is not itself
        if missing.any():
            raise ValueError(f"label of row {_first(missing)} is missing")
    text = raw.astype(str)
    known = tuple(np.unique(text).tolist())
    if like is not None:
        new = sorted(set(known) - set(like.classes))
        if new:
            raise ValueError(
                f"class {new[0]!r} was not there when the previous selection was made; "
                "select anew, without `previous`"
            )
        known = like.classes
    return Labels(known, class_codes(text, known), np.empty(0))


def read_groups(groups: ArrayLike | None, n: int) -> Labels | None:
    """Return groups by name."""
    if groups is None:
        return None
    return read_labels(_of_length(groups, n, "groups").astype(str), n)


class RowIds:
    """The numbers of n rows as their ids, without an array of them."""

    def __init__(self, rows: int) -> None:
        self.shape = (rows,)

    def __len__(self) -> int:
        """Return n."""
        return self.shape[0]

    def __getitem__(self, rows: slice | Rows) -> Rows:
        """Return the ids of a slice or of an array of rows."""
        if isinstance(rows, slice):
            return np.arange(*rows.indices(len(self)), dtype=np.int64)
        return np.asarray(rows, dtype=np.int64)


def read_ids(ids: ArrayLike | None, n: int) -> NDArray[np.generic]:
    """Return the rows' identities: the caller's, or their numbers.

    Raises
    ------
    ValueError
        If there are not n, one is missing, or two are equal.
    """
    if ids is None:
        return np.arange(n, dtype=np.int64)
    raw = _of_length(ids, n, "ids")
    if raw.dtype.kind in "iu":
        known: NDArray[np.generic] = raw.astype(np.int64)
    elif raw.dtype.kind in "UO":
        if raw.dtype.kind == "O":
            missing = np.array([v is None or v != v for v in raw.tolist()])  # NaN is not itself
            if missing.any():
                raise ValueError(f"id of row {_first(missing)} is missing")
        known = raw.astype(str)
    else:
        raise ValueError(f"ids must be whole numbers or text, got an array of {raw.dtype}")
    line = np.sort(known)
    same = np.flatnonzero(line[1:] == line[:-1])
    if len(same):
        double = line[same[0]]
        one, two = np.flatnonzero(known == double)[:2].tolist()
        raise ValueError(
            f"rows {one} and {two} have the same id {double.item()!r}; ids must be unique, "
            "because a row's random number belongs to its id"
        )
    return known


@dataclass(frozen=True)
class Numbers:
    """Permanent random numbers of the rows, one set for each thing that is drawn.

    They depend on id and seed alone, so that what is drawn by them does not change when other rows
    come, go or move. Sets for different purposes are independent: what the pilot is must not tell
    which rows are drawn.
    """

    ids: NDArray[np.generic]
    seed: int

    def tags(self) -> Floats:
        """Return (n,) numbers that stand for the ids: equal for equal ids, whatever the seed."""
        return permanent_random_numbers(self.ids, seed=0, purpose="identity")

    def of(self, purpose: str) -> Floats:
        """Return (n,) numbers in (0, 1)."""
        return permanent_random_numbers(self.ids, seed=self.seed, purpose=purpose)

    def asked(self, purpose: str) -> Floats:
        """Return what gives the numbers of some rows when indexed by them."""
        return self.of(purpose)


@dataclass(frozen=True)
class OnDemand:
    """Permanent random numbers that are made when they are asked for, not kept.

    Attributes
    ----------
    ids
        (n,) an array, or :class:`RowIds`.
    seed, purpose
        What they are for.
    """

    ids: Any
    seed: int
    purpose: str

    def __len__(self) -> int:
        """Return n."""
        return len(self.ids)

    def __getitem__(self, rows: Any) -> Any:
        """Return the numbers of a slice, of an array of rows, or of one row."""
        if isinstance(rows, int | np.integer):
            return self[np.array([rows])][0]
        some = np.asarray(self.ids[rows])
        flat = permanent_random_numbers(some.ravel(), seed=self.seed, purpose=self.purpose)
        return flat.reshape(some.shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Floats:
        """Return all numbers in memory."""
        return np.asarray(self[:], dtype=dtype)


@dataclass(frozen=True)
class NumbersOnDemand(Numbers):
    """Permanent random numbers of so many rows that no set of them is kept in memory."""

    ids: Any

    def tags(self) -> Floats:
        """Return what gives the numbers that stand for the ids of some rows."""
        return cast(Floats, OnDemand(self.ids, 0, "identity"))

    def asked(self, purpose: str) -> Floats:
        """Return what gives the numbers of some rows."""
        return cast(Floats, OnDemand(self.ids, self.seed, purpose))

    def of(self, purpose: str) -> Floats:
        """Return (n,) numbers in (0, 1), in memory."""
        return np.asarray(self.asked(purpose))


def read_numbers(ids: ArrayLike | None, n: int, seed: int, *, on_disk: bool) -> Numbers:
    """Return the permanent random numbers of rows, kept in memory or not; see :func:`read_ids`."""
    if not on_disk:
        return Numbers(read_ids(ids, n), seed)
    return NumbersOnDemand(RowIds(n) if ids is None else read_ids(ids, n), seed)


def read_seed(seed: int) -> int:
    """Return a seed.

    Raises
    ------
    ValueError
        If it is not a whole number between 0 and 2^31 - 1.
    """
    whole = isinstance(seed, int | np.integer) and not isinstance(seed, bool)
    if not whole or not 0 <= seed < 2**31:
        raise ValueError(f"seed must be a whole number between 0 and 2^31 - 1, got {seed!r}")
    return int(seed)


def ask(score: Score | ArrayLike, rows: Rows, n: int) -> Floats:
    """Ask for the scores of rows: the only place where that happens.

    Raises
    ------
    ValueError
        If the answer has another length, or a score is negative, NaN or infinite.
    """
    if callable(score):
        got = np.asarray(score(rows.copy()), dtype=np.float64)
        if got.shape != rows.shape:
            raise ValueError(
                f"score returned shape {got.shape} for {len(rows)} rows; it must return one number "
                "for each index it is given"
            )
    else:
        given = np.asarray(score)
        if given.shape != (n,):
            raise ValueError(f"expected {n} scores, got shape {given.shape}")
        got = given[rows].astype(np.float64)
    wrong = ~(np.isfinite(got) & (got >= 0.0))
    if wrong.any():
        raise ValueError(
            f"the score of row {rows[_first(wrong)]} is {got[wrong][0]}; "
            "scores must be finite and >= 0"
        )
    return got


def append_labels(embeddings: Vectors, targets: Vectors, scale: float) -> Vectors:
    """Append targets, as long as `scale`, to embeddings (see ``clustering.append_labels``)."""
    return np.hstack([embeddings, targets * np.float32(scale)])


def mean_norm(embeddings: Vectors) -> float:
    """Return the mean Euclidean norm of (m, d) embeddings; 1 if all are zero."""
    squares = np.einsum("ij,ij->i", embeddings, embeddings, dtype=np.float64)
    return float(np.sqrt(squares).mean()) or 1.0


def reader(embeddings: object, *, block_mib: int) -> clustering.Points:
    """Return embeddings as points that are read block by block."""
    source = embeddings
    if isinstance(embeddings, str | PathLike):
        source = _mapped(Path(embeddings))
    elif isinstance(embeddings, Sequence):
        source = np.asarray(embeddings)
    if isinstance(source, np.ndarray) and source.dtype.kind not in "fiub":
        raise ValueError(f"embeddings must be numbers, got an array of {source.dtype}")
    return clustering.Points(source, block_mib=block_mib)  # type: ignore[arg-type]


def _mapped(path: Path) -> NDArray[np.generic]:
    """Return the array of an .npy file as a memory map."""
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except ValueError as error:
        raise ValueError(f"{path}: expected the path of an .npy file of numbers: {error}") from None


def _of_length(values: ArrayLike, n: int, what: str) -> NDArray[np.generic]:
    raw = np.asarray(values)
    if raw.shape != (n,):
        raise ValueError(f"expected {n} {what}, got shape {raw.shape}")
    return raw


def _first(mask: NDArray[np.bool_]) -> int:
    return int(np.flatnonzero(mask)[0])
