"""Problems that sampling designs are compared on: rows, and a score whose total is estimated.

`python -m bench.problems` builds all of them; after that they are read from files. A problem is
built again when its file is deleted.
"""

from __future__ import annotations

import os
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache as remember
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

CACHE = Path(__file__).parents[1] / "data" / "bench"
"""Where built problems are kept unless told otherwise."""

Columns = dict[str, NDArray[Any]]

EMBEDDING = ("embedding",)
WITH_TARGET = ("embedding", "embedding+label")
ALL = ("embedding", "embedding+label", "gradient")


class ProblemError(Exception):
    """A problem is unknown, its file is damaged, or what was built cannot be used."""


@dataclass(frozen=True)
class Problem:
    """Rows with a score whose total is to be estimated.

    Attributes
    ----------
    name : str
        One of :func:`names`.
    embeddings : numpy.ndarray
        (n, d) float32, finite.
    score : numpy.ndarray
        (n,) float64, finite and at least 0.
    labels : numpy.ndarray, optional
        (n,) classes, as strings.
    spaces : tuple of str
        Which of ``embedding``, ``embedding+label`` and ``gradient`` make sense.
    family : str
        ``fashion``, ``r8``, ``reviews``, ``casp``, ``honest`` (the scored model is not the one the
        embeddings come from) or ``synthetic``.
    about : str
        One sentence: what the embedding is, what the score is, n and d.
    target : numpy.ndarray, optional
        (n,) float64, the number to be predicted where there are no classes.
    residuals : numpy.ndarray, optional
        (n, C) float32, probabilities minus one-hot labels in the sorted order of the classes; with
        `embeddings` as features, they make the gradient space. In the family ``honest`` they are
        those of a cheap model on `embeddings`, not those of the scored model.
    """

    name: str
    embeddings: NDArray[np.float32]
    score: NDArray[np.float64]
    labels: NDArray[np.str_] | None
    spaces: tuple[str, ...]
    family: str
    about: str
    target: NDArray[np.float64] | None = None
    residuals: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class _Recipe:
    """How a problem is made, and what is not in its file."""

    family: str
    spaces: tuple[str, ...]
    about: str
    build: Callable[[], Columns]


def names() -> tuple[str, ...]:
    """Return the problems' names, those that are built fastest first."""
    return tuple(_recipes())


def spaces(name: str) -> tuple[str, ...]:
    """Return the spaces of a problem, without loading it."""
    return _recipes()[name].spaces


def load(name: str, *, cache: Path = CACHE) -> Problem:
    """Return a problem, from its file if it has been built before.

    Parameters
    ----------
    name : str
        One of :func:`names`.
    cache : Path
        The folder of the files, made if missing.

    Raises
    ------
    ProblemError
        If there is no such problem, or its file cannot be read.
    curation.sources.SourceError, curation.encoders.EncoderError
        If the package that holds the data or the weights is not installed.
    """
    recipe = _recipes().get(name)
    if recipe is None:
        raise ProblemError(f"no problem is called {name!r}; known: {', '.join(names())}")
    path = cache / f"{name}.npz"
    if path.is_file():
        columns = _read(path)
    else:
        columns = recipe.build()
        _check(name, columns)
        _write(path, columns)
    n, d = columns["embeddings"].shape
    return Problem(
        name=name,
        embeddings=columns["embeddings"],
        score=columns["score"],
        labels=columns.get("labels"),
        spaces=recipe.spaces,
        family=recipe.family,
        about=f"{recipe.about}; n = {n:,}, d = {d}.",
        target=columns.get("target"),
        residuals=columns.get("residuals"),
    )


def _read(path: Path) -> Columns:
    try:
        with np.load(path, allow_pickle=False) as file:
            columns = {key: file[key] for key in file.files}
        _check(path.stem, columns)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, ProblemError) as error:
        raise ProblemError(
            f"{path} cannot be used ({error}); delete it to build it again"
        ) from error
    return columns


def _write(path: Path, columns: Columns) -> None:
    """Write the file under another name first: nobody ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.stem}.{os.getpid()}.tmp")
    try:
        with unfinished.open("wb") as file:
            np.savez(file, allow_pickle=False, **columns)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _check(name: str, columns: Columns) -> None:
    """Refuse arrays that do not fit together or are not finite."""
    missing = {"embeddings", "score"} - columns.keys()
    if missing:
        raise ProblemError(f"{name}: no array {' or '.join(sorted(missing))}")
    kinds = {"embeddings": np.float32, "score": np.float64, "labels": np.str_}
    kinds |= {"target": np.float64, "residuals": np.float32}
    n = len(columns["embeddings"])
    for key, array in columns.items():
        if key not in kinds or not np.issubdtype(array.dtype, kinds[key]) or len(array) != n:
            raise ProblemError(f"{name}: array {key} of {array.dtype} {array.shape}, {n} rows")
        if key == "labels":
            continue
        bad = ~np.isfinite(array.reshape(n, -1)).all(axis=1)
        if key == "score":
            bad |= array < 0
        if bad.any():
            row = int(bad.argmax())
            raise ProblemError(f"{name}: row {row}: {key} is {array[row]}")


@remember
def _recipes() -> dict[str, _Recipe]:
    # Imported late: main decides on threads before any library starts its own.
    from bench import real, synthetic

    made = {
        "smooth": ("a smooth function of position with noise of 5%", synthetic.smooth),
        "heavy-tailed": (
            "gamma noise around cluster means that are lognormal with sigma 1.5",
            synthetic.heavy_tailed,
        ),
        "rare-hard": (
            "gamma noise around 1, or around 50 in three clusters of 0.3% of the rows each",
            synthetic.rare_hard,
        ),
        "noise": ("lognormal with sigma 1, whatever the position", synthetic.noise),
    }
    recipes = {
        name: _Recipe("synthetic", EMBEDDING, f"40 Gaussian clusters, scored by {score}", build)
        for name, (score, build) in made.items()
    }
    recipes |= _fashion(real)
    recipes["casp"] = _Recipe(
        "casp",
        WITH_TARGET,
        "standardised features of CASP proteins, scored by the squared residual of a ridge "
        "regression fitted on 1,200 random rows",
        real.casp,
    )
    probe = "scored by the loss of a probe fitted on 400 random rows"
    tuned = "scored by the loss of the same encoder fine-tuned on {} random rows"
    recipes["r8"] = _Recipe(
        "r8", ALL, f"MiniLM embeddings of Reuters R8 (train), {probe}", real.reuters
    )
    recipes["minilm-questions"] = _Recipe(
        "honest",
        ALL,
        f"frozen MiniLM embeddings of TREC questions, {tuned.format(600)}",
        real.questions_fine_tuned,
    )
    recipes["minilm-reviews"] = _Recipe(
        "honest",
        ALL,
        f"frozen MiniLM embeddings of Rotten Tomatoes reviews, {tuned.format(800)}",
        real.reviews_fine_tuned,
    )
    recipes["reviews"] = _Recipe(
        "reviews", ALL, f"MiniLM embeddings of film reviews, {probe}", real.reviews
    )
    return recipes


def _fashion(real: Any) -> dict[str, _Recipe]:
    """Return the recipes on Fashion-MNIST, in the order in which they are built."""
    recipes = {}
    values = {"loss": "loss", "gradient_norm": "last-layer gradient norm"}
    for value, ending in (("loss", ""), ("gradient_norm", "-gradnorm")):
        for rows in (400, 1200):
            recipes[f"fashion-{rows}{ending}"] = _Recipe(
                "fashion",
                ALL,
                f"hidden features of a small network on Fashion-MNIST, scored by its own "
                f"{values[value]}, trained on {rows:,} random rows",
                partial(real.fashion, rows=rows, value=value),
            )
    spaces = {
        "pixels": "64 principal components of Fashion-MNIST's pixels",
        "mlp": "hidden features of a small network trained on 1,200 other rows of Fashion-MNIST",
    }
    for value, ending in (("loss", "loss"), ("gradient_norm", "gradnorm")):
        for epochs, network in ((real.CNN_EPOCHS, "cnn"), (10, "cnn10")):
            shorter = f" for 10 epochs instead of {real.CNN_EPOCHS}" if epochs == 10 else ""
            for space, embedding in spaces.items():
                recipes[f"fashion-{network}-{space}-{ending}"] = _Recipe(
                    "honest",
                    ALL,
                    f"{embedding}, scored by the {values[value]} of a convolutional network "
                    f"trained on 1,200 random rows{shorter}",
                    partial(real.fashion_cnn, space=space, value=value, epochs=epochs),
                )
    return recipes


def main() -> int:
    """Build every problem that has no file yet; return 1 if one could not be built."""
    import argparse

    parser = argparse.ArgumentParser(prog="python -m bench.problems", description=main.__doc__)
    parser.add_argument("--cache", type=Path, default=CACHE, help=f"default: {CACHE}")
    cache = parser.parse_args().cache
    from curation.threads import set_defaults

    set_defaults()
    from curation.encoders import EncoderError
    from curation.progress import LogListener, listen
    from curation.sources import SourceError

    failed = 0
    for name in names():
        began = time.perf_counter()
        found = " (from its file)" if (cache / f"{name}.npz").is_file() else ""
        try:
            with listen(LogListener(partial(print, f"  {name}:", flush=True), seconds=30.0)):
                problem = load(name, cache=cache)
        except (ProblemError, SourceError, EncoderError) as error:
            failed += 1
            print(f"{name}: {error}", file=sys.stderr, flush=True)
            continue
        n, d = problem.embeddings.shape
        seconds = time.perf_counter() - began
        print(
            f"{name:28} n {n:6,}  d {d:3}  score mean {problem.score.mean():9.4f}  "
            f"sd {problem.score.std():9.4f}  {seconds:6.1f} s{found}",
            flush=True,
        )
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
