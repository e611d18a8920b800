"""What the protected half of the holdout was asked, over all runs, and what it answers.

The record is a file of its own in the data set's folder, ``.holdout-<hash of the holdout's
rule>.json``. It belongs to no version of an artifact, as events are spent for ever: neither
retention nor an evaluation that is damaged or made again may bring them back. It is written before
an answer is: a run that is killed in between asks the same questions again, which get the same
answers and cost nothing. Another rule in ``holdout`` is another holdout, and has a record of its
own; rows that arrive by the same rule change threshold and noise, and give no event back.

Noise follows from the names of data set and question, so that runs can be repeated. It protects
from fitting the holdout by looking at answers, not from somebody who computes the noise.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from curation.holdout import Answer, ReusableHoldout
from curation.locks import dataset_lock
from curation.pipeline.dataset import Dataset
from curation.pipeline.findings import Finding
from curation.pipeline.halves import Halves
from curation.pipeline.measured import Measurements
from curation.store import digest
from curation.store.files import write_atomically

DELTA = 0.05
ACCURACY = "accuracy"
GAIN = "gain over uniform"
OPEN_ONLY = {
    "macro_f1": "no mean over rows: of the open half alone",
    "worst_class": "no mean over rows: of the open half alone",
}
FRESH = (
    "where the halves differ, the protected one is silent. Take a fresh holdout, of rows that no "
    "run was measured on, such as `holdout: {shards: [...]}` with shards that arrived since; it "
    "has all its events. (Raising evaluation.protected.overfitting_events weakens what is promised)"
)


@dataclass(frozen=True)
class Record:
    """The state of a holdout, and where it is kept.

    Attributes
    ----------
    path
        The file.
    holdout
        Events, questions, answers.
    whole
        Of so many rows figures were shown before the holdout was split, the protected half's among
        them.
    damaged
        Whether the file can't be read. Then no event is taken to be left, and it is not written.
    """

    path: Path
    holdout: ReusableHoldout
    whole: int = 0
    damaged: bool = False

    @classmethod
    def read(cls, dataset: Dataset, *, rows: int) -> Record:
        """Return the record of the holdout that the settings name, for `rows` protected rows."""
        rule = digest(dataset.config.holdout.model_dump())
        path = dataset.store.root / dataset.name / f".holdout-{rule[:16]}.json"
        events = dataset.config.evaluation.protected.overfitting_events
        seed = int(digest([dataset.name, rule])[:8], 16)
        new = ReusableHoldout(max(rows, 1), events, seed=seed)
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            kept = ReusableHoldout.from_json(json.dumps(found["state"]))
            return cls(path, replace(kept, rows=new.rows, events=events), int(found["whole"]))
        except FileNotFoundError:
            return cls(path, new)
        except (OSError, ValueError, KeyError, TypeError):
            return cls(path, replace(new, spent=events), damaged=True)

    def write(self) -> None:
        """Replace the file, on the disk when this returns; a damaged one is left as it is."""
        if not self.damaged:
            content = {"whole": self.whole, "state": json.loads(self.holdout.to_json())}
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, json.dumps(content, sort_keys=True) + "\n")


def consult(
    dataset: Dataset, halves: Halves, measured: dict[str, Measurements], *, recipe: str
) -> dict[str, Any]:
    """Ask the protected half about an evaluation, and return ``figures["holdout"]``.

    Parameters
    ----------
    dataset, halves
        The data set, and the halves of its holdout.
    measured
        By kind of model (``probe``, ``fine_tune``) and strategy: what was measured.
    recipe
        Fingerprint of the evaluation: subset, rows, settings, code. With kind, strategy and metric
        it is the question; the same one is answered as before.

    Returns
    -------
    dict
        ``rows``, ``open_rows``, ``protected_rows``, ``protected`` (bool), ``why`` (not), and
        ``notes`` (list of str). Where the holdout is protected also ``open_only`` (metric -> why it
        is of the open half alone), ``delta``, and ``answers``, each with ``kind``, ``strategy``
        (or ``gain over uniform``), ``metric``, ``open`` (the open half's figure), ``value`` (what
        is published; None where the halves differ and no event is left), ``overfitted`` and
        ``tolerance``; and the state of :func:`state_of`, as it was then.
    """
    figures: dict[str, Any] = {
        "rows": len(halves.opened),
        "open_rows": halves.rows,
        "protected_rows": halves.protected_rows,
        "protected": halves.split,
        "why": halves.why,
        "notes": [],
    }
    with dataset_lock(dataset.store.root, dataset.name, owner="evaluation"):
        record = Record.read(dataset, rows=halves.protected_rows)
        if not halves.split:
            if len(halves.opened) > record.whole:
                replace(record, whole=len(halves.opened)).write()
            return figures
        answers = list(_answers(record.holdout, measured, recipe))
        record.write()  # before anybody sees an answer
    figures |= {"open_only": OPEN_ONLY, "delta": DELTA, "answers": answers}
    figures |= state_of(record)
    figures["notes"] = _notes(record, answers)
    return figures


def state_of(record: Record) -> dict[str, Any]:
    """Return ``threshold``, ``noise``, ``tolerance``, ``questions`` and the events.

    Those are ``overfitting_events`` (in all), ``events_spent`` and ``events_left``. Threshold,
    noise and tolerance are those of accuracies; of differences they are twice as large.
    """
    holdout = record.holdout
    return {
        "threshold": holdout.threshold,
        "noise": holdout.noise,
        "tolerance": holdout.tolerance(DELTA),
        "questions": holdout.questions,
        "overfitting_events": holdout.events,
        "events_spent": holdout.spent,
        "events_left": holdout.left,
    }


def _answers(
    holdout: ReusableHoldout, measured: dict[str, Measurements], recipe: str
) -> Iterator[dict[str, Any]]:
    """Ask about the accuracy of each strategy, and about the gain of the subset."""
    for kind, table in measured.items():
        means = {}
        for strategy, seeds in table.items():
            opened = [one.metrics[ACCURACY] for one in seeds]
            protected = [one.protected for one in seeds if one.protected is not None]
            # the mean over seeds of means over rows is a mean over rows, between 0 and 1 as well
            means[strategy] = float(np.mean(opened)), float(np.mean(protected))
            question = digest([recipe, kind, strategy, ACCURACY])
            answer = holdout.ask(question, *means[strategy], delta=DELTA)
            yield _entry(kind, strategy, means[strategy][0], answer, low=0.0)
        if table:
            gain = [a - b for a, b in zip(means["subset"], means["uniform"], strict=True)]
            question = digest([recipe, kind, GAIN, ACCURACY])
            answer = holdout.ask(question, gain[0], gain[1], low=-1.0, high=1.0, delta=DELTA)
            yield _entry(kind, GAIN, gain[0], answer, low=-1.0)


def _entry(kind: str, strategy: str, opened: float, answer: Answer, *, low: float) -> dict:
    silent = math.isnan(answer.value)
    return {
        "kind": kind,
        "strategy": strategy,
        "metric": ACCURACY,
        "open": opened,
        # noise may lead out of what is possible; to cut it off brings it nearer to the truth
        "value": None if silent else min(max(answer.value, low), 1.0),
        "overfitted": answer.overfitted,
        "tolerance": answer.tolerance,
    }


def _notes(record: Record, answers: list[dict[str, Any]]) -> list[str]:
    notes = _refuted(answers)
    if record.whole:
        notes.append(
            f"figures of {record.whole:,} holdout rows were shown before the holdout was split: "
            "to those the protected half is no stranger"
        )
    return [*notes, *_worn_out(record)]


def _refuted(answers: list[dict[str, Any]]) -> list[str]:
    return [
        f"{a['kind'].replace('_', ' ')}, {a['strategy']}: {a['metric']} {a['open']:.3f} on the "
        "open half does not hold on the protected half"
        + (f", where it is about {a['value']:.3f}" if a["value"] is not None else "")
        for a in answers
        if a["overfitted"]
    ]


def _worn_out(record: Record) -> list[str]:
    if record.damaged:
        return [f"{record.path} can't be read: until it is restored, no event is left; {FRESH}"]
    if record.holdout.left:
        return []
    return [f"all {record.holdout.events} events of overfitting are spent: {FRESH}"]


def sentences(figures: dict[str, Any]) -> list[str]:
    """Return what ``figures["holdout"]`` says, for a terminal."""
    if not figures["protected"]:
        return [f"of {figures['rows']:,} rows, not protected: {figures['why']}"]
    lines = []
    for kind in dict.fromkeys(a["kind"] for a in figures["answers"]):
        said = ", ".join(
            f"{a['strategy']} {_shown(a)}" for a in figures["answers"] if a["kind"] == kind
        )
        lines.append(f"{kind.replace('_', ' ')}, {ACCURACY} as its protected half answers: {said}")
    lines.append(
        f"{figures['protected_rows']:,} protected rows: an answer is within "
        f"{figures['tolerance']:.2f} of their figure (a gain within {2 * figures['tolerance']:.2f}"
        f") but for {figures['delta']:.0%}; {figures['questions']:,} questions, "
        f"{figures['events_left']} of {figures['overfitting_events']} events of overfitting left"
    )
    return [*lines, *figures["notes"]]


def _shown(answer: dict[str, Any]) -> str:
    if answer["value"] is None:
        return "unknown"
    sign = "+" if answer["strategy"] == GAIN else ""
    return f"{answer['value']:{sign}.3f}" + (" (overfitted)" if answer["overfitted"] else "")


def not_asked(why: str) -> list[Finding]:
    """Return the checks of a holdout that was asked nothing: passed, with the reason."""
    return [Finding("holdout_agrees", True, why), Finding("holdout_budget", True, why)]


def told_now(dataset: Dataset, figures: dict[str, Any]) -> tuple[dict[str, Any], list[Finding]]:
    """Return metadata and checks of the holdout as it is now, given ``figures["holdout"]``."""
    if not figures["protected"]:
        why = f"not protected: {figures['why']}"
        return {"holdout_protected": why}, not_asked(why)
    record = Record.read(dataset, rows=figures["protected_rows"])
    state = state_of(record)
    told = {
        "holdout_questions": state["questions"],
        "holdout_events_left": state["events_left"],
        "holdout_tolerance": state["tolerance"],
    }
    wrong = _refuted(figures["answers"])
    budget = (
        f"{state['events_left']} of {state['overfitting_events']} events left after "
        f"{state['questions']:,} questions; an answer is within {state['tolerance']:.3f} of the "
        f"figure on {figures['protected_rows']:,} protected rows, but for {DELTA:.0%}"
    )
    return told, [
        Finding(
            "holdout_agrees",
            not wrong,
            "; ".join(wrong) or f"{len(figures['answers'])} figures hold on both halves",
            {"answers": len(figures["answers"]), "overfitted": len(wrong)},
            warning=True,
        ),
        Finding(
            "holdout_budget",
            state["events_left"] > 0,
            "; ".join(_worn_out(record)) or budget,
            told,
            warning=True,
        ),
    ]
