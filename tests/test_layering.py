"""Arrows point one way, and heavy libraries stay out of the code location."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import curation

ROOT = Path(curation.__file__).parent
DOMAIN = {"sources", "encoders", "clustering", "sampling", "models", "reporting"}
BASE = {"config", "mapped", "memory", "nearest", "products", "store", "progress", "threads"}
# what each part may import from the package, besides itself
ALLOWED = {
    **dict.fromkeys(DOMAIN, BASE),
    "config": {"config_encoder", "config_evaluation", "config_source", "schema"},
    "config_encoder": {"schema"},
    "config_evaluation": {"schema"},
    "config_source": {"schema"},
    "schema": set(),
    "mapped": set(),
    "memory": set(),
    "progress": set(),
    "threads": set(),
    "nearest": {"threads"},
    "products": {"threads"},
    "store": set(),
    "registry": {"config"},
    "selection": {"clustering", "sampling", "mapped", "memory", "products", "progress", "threads"},
    "locks": {"store"},
    "baselines": {"clustering", "sampling", "selection"},
    "holdout": set(),
    "subset": {"store", "pipeline"},
    "exports": {"config", "reporting", "sources", "store", "subset"},
    "history": {"store", "subset"},
    "quarantine": {"store"},
    "retention": {"store", "locks"},
    "terminal": {"progress"},
    "pipeline": DOMAIN | BASE | {"selection", "locks", "history", "retention", "holdout"},
    "definitions": {"threads", "pipeline"},
    "cli": {"commands", "threads"},
    "commands": {
        "pipeline",
        "registry",
        "subset",
        "exports",
        "store",
        "locks",
        "history",
        "quarantine",
        "retention",
        "terminal",
        "progress",
        "sources",
    },
    "__init__": {"selection", "subset"},
}


def modules() -> list[Path]:
    return sorted(p for p in ROOT.rglob("*.py") if "defs" not in p.parts)


def part_of(path: Path) -> str:
    relative = path.relative_to(ROOT)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imports(path: Path) -> set[str]:
    """All dotted names a module imports, at its top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: a relative import"
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path):
    part = part_of(path)
    for name in imports(path):
        head, *rest = name.split(".")
        if head == "curation" and rest:
            target = rest[0]
            if (ROOT / target).is_dir() or (ROOT / f"{target}.py").is_file():
                assert target == part or target in ALLOWED[part], f"{part} imports {name}"
        if head == "dagster":
            assert part in ("pipeline", "definitions"), f"{part} imports dagster"
        if head in ("torch", "transformers"):
            assert part in ("encoders", "models", "products", "progress"), f"{part} imports {name}"


@pytest.mark.parametrize("part", ["clustering", "sampling"])
def test_the_core_is_arrays_in_arrays_out(part):
    """No files, no tables, no logging, no global random state."""
    for path in (ROOT / part).glob("*.py"):
        heads = {name.split(".")[0] for name in imports(path)}
        assert not heads & {"logging", "polars", "pathlib", "os", "pyarrow", "random"}
        assert "np.random.seed" not in path.read_text()


def test_code_location_loads_without_heavy_libraries():
    """Dagster loads definitions often; torch alone would add seconds."""
    code = (
        "import sys, curation.definitions as d; d.defs();"
        "print([m for m in ('torch', 'faiss', 'transformers', 'matplotlib', 'sklearn')"
        " if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip().splitlines()[-1] == "[]"


def test_no_pickle_and_no_remote_code():
    """Weights are safetensors; nothing is unpickled, and no code comes with weights."""
    for path in modules():
        text = path.read_text()
        assert not imports(path) & {"pickle", "joblib", "cloudpickle", "dill"}
        assert "trust_remote_code=True" not in text
        assert "torch.load" not in text
        assert "allow_pickle=True" not in text
