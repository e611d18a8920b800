"""The data sets that are defined: their YAML files, found and read without Dagster."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from curation.config import CuratedDatasetConfig

COMPONENT = "curation.pipeline.CuratedDataset"


class RegistryError(Exception):
    """A data set is not defined, or its YAML is wrong."""


def defs_folder() -> Path:
    """Return the folder of the data sets' YAML: ``CURATION_DEFS``, else the package's ``defs``."""
    value = os.environ.get("CURATION_DEFS")
    return Path(value).expanduser().resolve() if value else Path(__file__).parent / "defs"


def dataset_files() -> dict[str, Path]:
    """Return the name of each data set's folder and its ``defs.yaml``."""
    return {path.parent.name: path for path in sorted(defs_folder().glob("*/defs.yaml"))}


def load_config(name: str) -> CuratedDatasetConfig:
    """Read the settings of one data set.

    Raises
    ------
    RegistryError
        If no such data set is defined, or its YAML is wrong; the message names file, line, field
        and what was expected.
    """
    files = dataset_files()
    if name not in files:
        known = ", ".join(files) or "none"
        raise RegistryError(
            f"no data set {name!r} is defined in {defs_folder()} (defined: {known}); "
            f"create {defs_folder() / name / 'defs.yaml'}"
        )
    return read_config(files[name])


def read_config(path: Path) -> CuratedDatasetConfig:
    """Read one ``defs.yaml``."""
    text = path.read_text(encoding="utf-8")
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RegistryError(f"{path}: not YAML: {error}") from None
    if not isinstance(document, dict) or document.get("type") != COMPONENT:
        raise RegistryError(f"{path}:1: expected `type: {COMPONENT}`")
    attributes = dict(document.get("attributes") or {})
    attributes.setdefault("name", path.parent.name)
    try:
        return CuratedDatasetConfig.model_validate(attributes)
    except ValidationError as error:
        raise RegistryError(_explain(path, text, error)) from None


def _explain(path: Path, text: str, error: ValidationError) -> str:
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    lines = []
    for item in error.errors():
        where = ("attributes", *item["loc"])
        field = ".".join(map(str, item["loc"])) or "attributes"
        message = item["msg"].removeprefix("Value error, ")
        lines.append(f"{path}:{_line_of(node, where)}: {field}: {message}")
    return "\n".join(lines)


def _line_of(node: Any, where: tuple[Any, ...]) -> int:
    """Return the line of the deepest part of `where` that the YAML has."""
    line = int(node.start_mark.line) + 1
    for part in where:
        if not isinstance(node, yaml.MappingNode):
            break
        for key, value in node.value:
            if key.value == str(part):
                line, node = int(key.start_mark.line) + 1, value
                break
        else:
            break
    return line
