"""`curation.select`: the notebook's way in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from curation import clustering, sampling
from curation.sampling import constants as spread
from curation.sampling import proxies
from curation.sampling.guard import FLAT
from curation.sampling.shares import allocate
from curation.selection import columns
from curation.selection.drawing import Drawing
from curation.selection.fit import Fitted, PerRow, Settings, assign, fit, fit_sample, measure
from curation.selection.inputs import (
    Labels,
    Numbers,
    Score,
    read_groups,
    read_labels,
    read_numbers,
    read_seed,
    reader,
)
from curation.selection.layout import ByRow, lay_out
from curation.selection.needs import memory_needed, tell
from curation.selection.plan import resolve_budget, resolve_k
from curation.selection.result import Selection, make_selection
from curation.selection.table import SPACES, MemoryTable, Space

Floats = NDArray[np.float64]

Shares = Mapping[str, float] | str
Minimum = Mapping[str, int] | int


def select(
    embeddings: ArrayLike | clustering.BlockReader | str | PathLike[str],
    score: Score | ArrayLike,
    *,
    budget: int | None = None,
    fraction: float | None = None,
    epsilon: float | None = None,
    delta: float = 0.05,
    labels: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    ids: ArrayLike | None = None,
    k: int | str = "auto",
    space: str = "embedding",
    proxy: str = "auto",
    constants: str = "balanced",
    design: str = "coordinated",
    mix: float | str = "auto",
    tilt: str | None = None,
    shares: Shares | None = None,
    minimum: Minimum | None = None,
    weight_exponent: float = 1.0,
    z: int = 2,
    seed: int = 0,
    previous: Selection | None = None,
    block_mib: int = 64,
) -> Selection:
    """Choose rows so that weighted totals over them estimate totals over all rows.

    Parameters
    ----------
    embeddings
        (n, d) finite numbers: an array, a memory map, the path of an ``.npy`` file, or anything
        with a shape that gives rows by slice and by increasing indices (h5py, zarr). It is read in
        blocks, twice. What is read of a memory map is let go again.
    score
        Called with the int64 indices of the medoids, and once more with those of the pilot rows;
        returns their scores, >= 0. Or an (n,) array, of which only those entries are read.
    budget, fraction, epsilon
        Number of draws, share of the rows, or error radius at level ``1 - delta`` as a share of the
        certificate's bound (which is larger than the total: about twice as large with
        ``constants="balanced"`` and a fixed mix), without its excess. Give exactly one.
    delta
        Error probability of the certificate.
    labels
        (n,) class of each row, or its target as floating-point numbers. Used by the spaces that
        need them, by ``proxy="regression"`` and by ``tilt="classes"``.
    groups
        (n,) group of each row, for `shares`, `minimum` and ``tilt="groups"``; calibrated estimates
        reproduce the groups' sizes as well.
    ids
        (n,) unique whole numbers or texts. A row's luck belongs to its id: with ids the choice does
        not depend on the order of the rows, and stays when others come and go. Left out: the row
        numbers.
    k
        Clusters, or ``auto``.
    space
        What is clustered: ``embedding``, ``embedding+label`` or ``gradient`` (the last layer's
        gradient under a quick model of the labels, randomly projected).
    proxy
        How scores that were not asked for are estimated: ``cluster`` (the medoid's), ``low_rank``
        (a combination of the medoids'), ``regression`` (on neighbours' scores and, with labels, on
        how hard the labels say a row is), or ``auto``: the one whose law has the smallest expected
        error on the pilot rows.
    constants
        How distance enters: ``balanced``, ``max``, ``quantile``, ``conformal`` or ``variance``.
        ``max`` and ``quantile`` ask for several pilot rows in every cluster. With ``balanced`` and
        ``mix="auto"`` a half or a quarter of the constant is taken where the pilot rows say so.
    design
        ``coordinated``, ``systematic``, ``iid`` (the published algorithm), ``poisson``,
        ``stratified`` (Neyman), ``uniform`` or ``stratified_uniform``.
    mix
        Share of the uniform law, in [0, 1]; ``auto`` takes 0.1, or more where the pilot rows say
        that the score has little to do with the embedding.
    tilt
        ``classes`` or ``groups``: rare ones get more rows (geometric mean with the balanced law).
    shares
        Shares of the budget for groups: ``proportional`` to their sizes, or a mapping by name.
    minimum
        Least expected number of rows of every group, or of some by name.
    weight_exponent
        Training weights are the weights raised to this, in [0, 1].
    z
        Power of the distance: 2 as in k-means, 1 as in k-median.
    seed
        Same ids and seed: same rows, whatever the order of the rows, the size of the blocks and the
        number of threads.
    previous
        A selection whose space, clusters, queried scores, proxy, constants, mixture and strata are
        kept: the rows, of which some may be new, are only assigned, and no score is asked for. `k`,
        `space`, `proxy`, `constants`, `mix` and `z` are those of the previous selection; what is
        given for them is checked and not used. Give the same ids and the same seed.
    block_mib
        Size of the blocks in which embeddings are read. What will be needed of memory is logged
        before it begins (``curation.select``, level INFO) where there are more than 262,144 rows;
        :func:`curation.memory_needed` tells it beforehand, ``diagnostics["memory_needed"]`` after.

    Returns
    -------
    Selection

    Raises
    ------
    ValueError
        For input that can't be meant: wrong shapes, NaN, a negative score, two equal ids, a budget
        above n, an option that needs labels or groups.
    MemoryError
        If more memory will be needed than this process may ever have.
    """
    if previous is not None and not isinstance(previous, Selection):
        raise TypeError(f"previous must be a Selection, not {type(previous).__name__}")
    points = reader(embeddings, block_mib=block_mib)
    n = len(points)
    _check(space=space, proxy=proxy, constants=constants, design=design, mix=mix, tilt=tilt, z=z)
    if not 0.0 <= weight_exponent <= 1.0:
        raise ValueError(f"weight_exponent must be in [0, 1], got {weight_exponent}")
    seed = read_seed(seed)
    on_disk = n > columns.AT_A_TIME
    # law and order on disk are for the design that is drawn along it, by the law as it is
    along = on_disk and design == "coordinated" and (tilt, shares, minimum) == (None, None, None)
    numbers = read_numbers(ids, n, seed, on_disk=on_disk)
    read = read_labels(labels, n, like=None if previous is None else previous._state.labels)
    grouped = read_groups(groups, n)
    _check_needs(
        read, grouped, space=space, design=design, tilt=tilt, shares=shares, minimum=minimum
    )
    s = resolve_budget(n, budget=budget, fraction=fraction, epsilon=epsilon, delta=delta)
    if grouped is not None and (shares is not None or minimum is not None):
        even = np.full(n, 1.0 / n)  # what can't be given is said before a score is paid for
        allocate(even, grouped.codes, grouped.classes, s, shares=shares, minimum=minimum)
    plan = memory_needed(
        n,
        points.d,
        budget=s,
        k=k,
        space=space,
        classes=0 if read is None else max(len(read.classes), 1),
        design=design,
        tilted=not along and design == "coordinated",
        ids=ids is not None,
        mapped=not isinstance(points.source, np.ndarray) or points.mapped is not None,
        block_mib=block_mib,
    )
    tell(plan, n)
    settings = Settings(
        k=resolve_k(k, budget=s, rows=n),
        proxy=proxy,
        constants=constants,
        mix=mix,
        design=design,
        draws=s,
        z=z,
        seed=seed,
    )
    if previous is None:
        mapping = _fit_space(space, points, read, numbers, settings)
        table = MemoryTable(points, read, mapping, numbers.tags())
        fitted, cluster = fit(table, numbers, score, settings, on_disk=on_disk)
    else:
        fitted = replace(previous._state.fitted, queries=0)  # they were paid for then
        table = MemoryTable(points, read, _space_of(previous, points, read), numbers.tags())
        if not np.isin(previous._state.tags, table.tags).any():
            raise ValueError(
                "none of the previous selection's rows is among these, by their ids; give the same "
                "ids as then (left out, they are row numbers)"
            )
        cluster = assign(fitted, table, on_disk=on_disk)
    rows = measure(fitted, table, cluster)
    tilted = {None: None, "classes": read, "groups": grouped}[tilt]
    drawn_by = _along(fitted, rows, numbers) if along else None
    if drawn_by is None:
        tags = np.asarray(table.tags)
        rows = rows[:] if on_disk else rows
        drawn_by = {
            "scores": fitted.scores(rows),
            "law": fitted.law(
                rows, flat=design in FLAT, tilt=None if tilted is None else tilted.codes
            ),
            "numbers": numbers.of("draw"),
            "tags": tags,
            "order": fitted.order(rows, tags),
            "additive": fitted.constants.additive(rows.distance, rows.cluster),
        }
    law = drawn_by["law"]
    state = Drawing(
        fitted=fitted,
        rows=rows,
        space=table.space,
        **drawn_by,
        budget=s,
        design=design,
        needs=plan,
        delta=delta,
        exponent=weight_exponent,
        seed=seed,
        dimension=points.d,
        labels=read,
        groups=grouped,
        redraw=_Redraw(law, shares, minimum),
        borders=None if previous is None else previous._borders(),
    )
    chosen: Selection = state.redraw(state, s)
    return chosen


def _along(fitted: Fitted, rows: PerRow, numbers: Numbers) -> dict[str, Any]:
    """Return what a draw of more rows than are held in memory is made from."""
    n, tags = len(rows), numbers.tags()
    layout = lay_out(fitted, rows, tags)
    return {
        "scores": ByRow(n, lambda some: fitted.scores(rows[some])),
        "law": ByRow(n, lambda some: layout.law(fitted.drawn_by(rows[some]))),
        "numbers": numbers.asked("draw"),
        "tags": tags,
        "order": layout.order,
        "additive": layout.additive,
        "layout": layout,
    }


class _Redraw:
    """Draws by a state at any budget, the groups' shares included."""

    def __init__(self, law: Floats, shares: Shares | None, minimum: Minimum | None) -> None:
        self.law, self.shares, self.minimum = law, shares, minimum

    def __call__(self, state: Drawing, budget: int) -> Selection:
        """Return the selection of `budget` rows."""
        budget = resolve_budget(state.n, budget=budget)
        if state.groups is None or (self.shares is None and self.minimum is None):
            return make_selection(replace(state, law=self.law, budget=budget))
        law = allocate(
            self.law,
            state.groups.codes,
            state.groups.classes,
            budget,
            shares=self.shares,
            minimum=self.minimum,
        )
        return make_selection(replace(state, law=law, budget=budget), by_group=True)


def _fit_space(
    name: str,
    points: clustering.Points,
    labels: Labels | None,
    numbers: Numbers,
    settings: Settings,
) -> Space:
    """Settle what is clustered from the rows k-means is fitted on."""
    if name == "embedding":
        return Space(name)
    sample = fit_sample(numbers, settings)
    targets = None if labels is None else labels.targets(sample)
    return Space.fit(name, points.take(sample), targets, seed=settings.seed)


def _space_of(previous: Selection, points: clustering.Points, labels: Labels | None) -> Space:
    """Return the space of a previous selection, if these rows have a place in it."""
    state = previous._state
    if (state.labels is None) != (labels is None):
        had = "without" if labels is not None else "with"
        raise ValueError(
            f"the previous selection was made {had} labels; select anew, without `previous`"
        )
    if points.d != state.dimension:
        raise ValueError(
            f"the previous selection had embeddings of {state.dimension} coordinates, these have "
            f"{points.d}; select anew, without `previous`"
        )
    return state.space


def _check(**options: Any) -> None:
    known = {
        "space": SPACES,
        "proxy": (*proxies.PROXIES, "auto"),
        "constants": spread.CONSTANTS,
        "design": tuple(sorted(sampling.DESIGNS)),
        "tilt": (None, "classes", "groups"),
        "z": (1, 2),
    }
    for name, allowed in known.items():
        if options[name] not in allowed:
            raise ValueError(
                f"unknown {name} {options[name]!r}; known: {', '.join(map(str, allowed))}"
            )
    mix = options["mix"]
    if mix != "auto" and (isinstance(mix, str) or not 0.0 <= mix <= 1.0):
        raise ValueError(f"mix must be 'auto' or a number in [0, 1], got {mix!r}")


def _check_needs(
    labels: Labels | None,
    groups: Labels | None,
    *,
    space: str,
    design: str,
    tilt: str | None,
    shares: Shares | None,
    minimum: Minimum | None,
) -> None:
    if labels is None and space != "embedding":
        raise ValueError(f"space {space!r} needs `labels`")
    if tilt == "classes" and (labels is None or not labels.classes):
        raise ValueError("tilt 'classes' needs `labels` that are classes")
    if design in FLAT and tilt is not None:
        raise ValueError(
            f"design {design!r} draws every row with the same probability: tilt needs another one"
        )
    if groups is None and (tilt == "groups" or shares is not None or minimum is not None):
        raise ValueError("tilt 'groups', `shares` and `minimum` need `groups`")
