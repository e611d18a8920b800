"""Reading defs.yaml without Dagster: errors name file, line, field and remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from curation.config import CuratedDatasetConfig
from curation.registry import RegistryError, dataset_files, load_config, read_config

GOOD = """\
type: curation.pipeline.CuratedDataset
attributes:
  source:
    folder: data/x
  columns:
    input: text
    label: label
  selection:
    budget: 10
"""


def test_shipped_data_sets_are_read():
    assert {"questions", "reviews", "fashion"} <= set(dataset_files())
    for name in dataset_files():
        assert load_config(name).name == name


def test_unknown_data_set_says_where_to_define_it():
    with pytest.raises(RegistryError, match=r"no data set 'nope'.*nope/defs.yaml"):
        load_config("nope")


@pytest.mark.parametrize(
    ("old", "new", "line", "told"),
    [
        ("budget: 10", "budget: 0", 9, "selection.budget: Input should be greater than or equal"),
        ("budget: 10", "bugdet: 10", 9, "selection.bugdet: Extra inputs are not permitted"),
        ("budget: 10", "budget: 10\n    fraction: 0.1", 8, "selection: give exactly one of"),
        (
            "folder: data/x",
            "pattern: '*'",
            3,
            "source: source: give exactly one of `folder`, `url`, `package`",
        ),
        ("label: label", "group: g", 2, "columns: a pilot model needs `label` or `target`"),
        ("type: curation.pipeline.CuratedDataset", "type: other", 1, "expected `type: curation"),
        ("    input: text", "   input: text", None, "not YAML"),
    ],
)
def test_errors_name_file_line_and_field(tmp_path: Path, old, new, line, told):
    path = tmp_path / "mine" / "defs.yaml"
    path.parent.mkdir()
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(RegistryError) as error:
        read_config(path)
    assert told in str(error.value)
    assert str(path) in str(error.value)
    if line is not None:
        assert f"{path}:{line}:" in str(error.value)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"clusters": {"space": "gradient"}, "columns": {"input": "x", "target": "y"}}, "gradient"),
        ({"selection": {"budget": 5, "tilt": "classes"},
          "columns": {"input": "x", "target": "y"}}, "tilt"),
        ({"score": {"model": "column"}}, "go together"),
        ({"score": {"model": "transformer"}, "encoder": {"type": "pixels"}}, "needs encoder.type"),
        ({"holdout": {"fraction": 0.2, "column": "split"}}, "exactly one of"),
        ({"source": {"package": "p"}}, "needs `file`"),
        ({"source": {"folder": "x", "format": "lines"}}, "needs `line_pattern`"),
        ({"clusters": {"k": 0}}, "at least 1"),
        ({"schedule": {"cron": "daily"}}, "expected five fields"),
        ({"name": "Bad Name"}, "lower-case"),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit_together_are_refused(changes, told):
    good = {
        "source": {"folder": "x"},
        "columns": {"input": "text", "label": "label"},
        "selection": {"budget": 10},
    }
    CuratedDatasetConfig.model_validate(good)
    with pytest.raises(ValueError, match=told):
        CuratedDatasetConfig.model_validate({**good, **changes})
