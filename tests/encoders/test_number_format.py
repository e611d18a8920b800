"""The number format is measured once, and is the same every time it is asked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from curation.config import Encoder
from curation.encoders import encoder_fingerprint, number_format, resolve_dtype

FLAGS = "processor : 0\nmodel name : Some CPU\nflags : {}\n\nprocessor : 1\nflags : sse\n"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine nothing was measured on yet, whose processor's flags say bfloat16."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "cpuinfo").write_text(FLAGS.format("fpu avx512_bf16 sse"))
    monkeypatch.setattr(number_format, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(number_format, "_known", {})
    return tmp_path


def never() -> dict[str, object]:
    raise AssertionError("measured again")


def test_it_is_measured_once_and_kept(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(number_format, "_measured", lambda: {"dtype": "float32"})
    assert resolve_dtype("auto") == "float32"
    monkeypatch.setattr(number_format, "_measured", never)
    monkeypatch.setattr(number_format, "_known", {})  # as in another process
    assert resolve_dtype("auto") == "float32"
    assert encoder_fingerprint(Encoder()) == encoder_fingerprint(Encoder(dtype="float32"))
    number_format.record_path().unlink()
    assert resolve_dtype("auto") == "float32"  # a process does not change its mind
    assert resolve_dtype("bfloat16") == "bfloat16"
    assert [p.name for p in (machine / "curation").iterdir()] == []


def test_the_first_of_several_processes_is_believed(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow() -> dict[str, object]:
        number_format.record_path().write_text(json.dumps({"dtype": "bfloat16"}))
        return {"dtype": "float32"}

    monkeypatch.setattr(number_format, "_measured", slow)
    assert resolve_dtype("auto") == "bfloat16"


def test_another_processor_or_torch_is_measured_for_itself(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = number_format.record_path()
    assert first == number_format.record_path()
    monkeypatch.setattr(number_format, "version", lambda name: "99.0")
    second = number_format.record_path()
    (machine / "cpuinfo").write_text(FLAGS.format("fpu sse"))
    assert len({first, second, number_format.record_path()}) == 3


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("fpu avx512_bf16 sse", "bfloat16"),
        ("fpu amx_bf16", "bfloat16"),
        ("fpu avx2 not_avx512_bf16_here", "float32"),
        (None, "float32"),
    ],
)
def test_flags_decide_where_nothing_can_be_kept(
    flags: str | None, expected: str, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if flags is None:
        (machine / "cpuinfo").unlink()
    else:
        (machine / "cpuinfo").write_text(FLAGS.format(flags))
    (machine / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(machine / "file"))  # no folder can be made in it
    monkeypatch.setattr(number_format, "_measured", never)
    assert resolve_dtype("auto") == expected


def test_a_damaged_record_is_told_and_not_believed(
    machine: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(number_format, "_measured", never)
    path = number_format.record_path()
    path.parent.mkdir()
    for text in ("", "[]", '{"dtype": "int3"}'):
        path.write_text(text)
        monkeypatch.setattr(number_format, "_known", {})
        assert resolve_dtype("auto") == "bfloat16"
    assert "delete it" in caplog.text


def test_flags_decide_where_measuring_fails(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(machine / "no-python"))
    assert resolve_dtype("auto") == "bfloat16"
    assert "flags" in json.loads(number_format.record_path().read_text())["by"]


def test_processes_that_ask_at_once_agree(tmp_path: Path) -> None:
    """Both measure really, on this machine, and take what was kept first."""
    code = "from curation.encoders import resolve_dtype as r; print(r('auto'))"
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
        )
        for _ in range(2)
    ]
    answers = {child.communicate(timeout=300)[0].strip() for child in children}
    (kept,) = (tmp_path / "curation").iterdir()
    found = json.loads(kept.read_text())
    assert found["by"] == "measured"
    assert answers == {found["dtype"]}
    assert (found["bfloat16_times_as_fast"] >= number_format.FASTER) == (
        found["dtype"] == "bfloat16"
    )
