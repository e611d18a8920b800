"""Generated input for the readers: a few examples each time, thousands with ``make fuzz``."""

from __future__ import annotations

import gzip
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import seeds
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from curation.config import Columns, Holdout, Source
from curation.sources import RowReader, SourceError
from curation.sources.formats import open_blocks
from curation.sources.secrets import redact, remember

LONG = os.environ.get("CURATION_FUZZ") == "long"
SECONDS = 20.0  # a busy machine; what hangs takes longer
WHERE = "clouds: shard day-1"

EXAMPLES = 2000 if LONG else 25

few = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    # The same examples each time, and no search for smaller ones, which takes minutes.
    derandomize=not LONG,
    phases=list(Phase) if LONG else [Phase.explicit, Phase.generate],
)

# Of every format, some columns that may well not be there, or be of another type.
ROLES = [
    {"input": "text", "id": "key", "label": "label", "target": None},
    {"input": "vector", "label": "label"},
    {"input": "txt", "label": "label", "group": "size"},
    {"input": "image", "id": "id", "label": "label"},
    {"input": "embedding"},
    {"input": "text", "target": "size"},
]


def _read(path: Path, name: str, roles: dict, mib: int = 1) -> tuple[list, list]:
    """Read and validate as the pipeline does; return the blocks, and how many rows came of them."""
    config = Source(
        folder=str(path.parent), format="images" if path.is_dir() else "auto", block_mib=mib
    )
    reader = RowReader(
        columns=Columns(**roles), holdout=Holdout(fraction=0.5), dataset="clouds", shard="day-1"
    )
    rows = [reader.take(block) for block in open_blocks(path, config=config, where=WHERE)]
    assert reader.rows_in == reader.accepted + reader.quarantined
    return [r.accepted for r in rows], [r.quarantined for r in rows]


@pytest.mark.parametrize("name", seeds.SEEDS)
def test_broken_files_raise_one_error_that_says_where(name):
    @few
    @given(data=seeds.broken(name), roles=st.sampled_from(ROLES))
    def run(data: bytes, roles: dict) -> None:
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            told = f"{WHERE}: nothing was wrong"
            try:
                _read(seeds.put(Path(folder), name, data), name, roles)
            except SourceError as error:
                told = str(error)
        note(told)
        assert told.startswith(WHERE)
        assert "Traceback" not in told
        assert time.monotonic() - began < SECONDS

    run()


_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
_row = st.fixed_dictionaries(
    {
        # a word before, so that no format can take it for a number; some are empty all the same
        "text": st.one_of(st.sampled_from(["", " ", "\t"]), _text.map(lambda t: f"w {t}")),
        "label": st.one_of(st.none(), _text.map(lambda t: f"c {t}")),
        "size": st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False)),
    }
)
_SCHEMA = {"text": pl.String, "label": pl.String, "size": pl.Float64}


def _written(rows: list[dict]) -> dict[str, bytes]:
    frame = pl.DataFrame(rows, schema=_SCHEMA)
    return {
        "parquet": seeds.parquet(frame),
        "jsonl": seeds.jsonl(rows),
        "jsonl.gz": gzip.compress(seeds.jsonl(rows, escaped=True)),
        "jsonl.zst": seeds.zstd(seeds.jsonl(rows)),
        "csv": seeds.comma(rows),
        "csv.gz": gzip.compress(seeds.comma(rows)),
        "arrow": seeds.arrow(frame),
        "arrow stream": seeds.arrow(frame, stream=True),
    }


@few
@given(rows=st.lists(_row, min_size=1, max_size=12), mib=st.sampled_from([1, 64]))
def test_the_same_rows_come_back_from_every_format(rows, mib):
    """With the same ids, which are hashes of their content: texts, labels and numbers."""
    roles = {"input": "text", "label": "label"}
    if all(row["size"] is None for row in rows):
        rows = [{**row, "size": 1.0} for row in rows]
    found = {}
    for name, data in _written(rows).items():
        with tempfile.TemporaryDirectory() as folder:
            accepted, aside = _read(seeds.put(Path(folder), name, data), name, roles, mib)
        table = pl.concat(accepted).select("id", "row", "split", "text", "label", pl.col("size"))
        table = table.with_columns(pl.col("size").cast(pl.Float64))
        wrong = pl.concat(aside).select("row", "field", "reason")
        found[name] = (table.rows(), wrong.rows())
    for name, got in found.items():
        assert got == found["parquet"], name
    good = found["parquet"][0]
    valid = {(r["text"], r["label"]) for r in rows if r["text"].strip() and r["label"] is not None}
    assert {(r[3], r[4]) for r in good} == valid
    assert [(r[3], r[4], r[5]) for r in good] == [
        (rows[r[1]]["text"], rows[r[1]]["label"], rows[r[1]]["size"]) for r in good
    ]


_number = st.floats(-1e6, 1e6, width=32)


@few
@given(
    matrix=st.integers(1, 5).flatmap(
        lambda width: st.lists(
            st.lists(_number, min_size=width, max_size=width), min_size=1, max_size=9
        )
    ),
    mib=st.sampled_from([1, 64]),
)
def test_the_same_vectors_come_back_from_every_format(matrix, mib):
    frame = pl.DataFrame({"embedding": matrix}, schema={"embedding": pl.List(pl.Float32)})
    files = {
        "npy": seeds.npy(np.array(matrix, dtype=np.float32)),
        "parquet": seeds.parquet(frame),
        "arrow": seeds.arrow(frame),
        "jsonl": seeds.jsonl(frame.to_dicts()),
    }
    found = {}
    for name, data in files.items():
        with tempfile.TemporaryDirectory() as folder:
            path = seeds.put(Path(folder), name, data)
            accepted, _ = _read(path, name, {"input": "embedding"}, mib)
        found[name] = pl.concat(accepted).select("id", "row", "embedding").rows()
    for name, got in found.items():
        assert got == found["npy"], name
    assert len(found["npy"]) == len({tuple(x + 0.0 for x in row) for row in matrix})
    assert [row[2] for row in found["npy"]] == [matrix[row[1]] for row in found["npy"]]


_secret = st.text("abcXYZ0189-._~+/=%", min_size=10, max_size=40).filter(
    lambda s: s.strip("-._~+/=%*") == s
)
_quoted = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="'\"\\\n\r"), min_size=10
)
_TEMPLATES = [
    "https://x.blob.core.windows.net/c?sv=2024-01-01&sig={}&se=2025",
    "GET https://bucket.s3.amazonaws.com/k?X-Amz-Signature={}&X-Amz-Date=1 failed",
    "X-Amz-Security-Token={}",
    "X-Goog-Signature={}",
    "DefaultEndpointsProtocol=https;AccountName=a;AccountKey={};EndpointSuffix=x",
    "Authorization: Bearer {}",
    "authorization: AWS4-HMAC-SHA256 Credential=AKIA/1, Signature={}",
    "aws_secret_access_key = {}",
    "token={} was refused",
    "api_key: {}",
    "password={}",
]
_QUOTED = [
    '{{"aws_secret_access_key": "{}", "region": "x"}}',
    "{{'password': '{}'}}",
    "client(secret=\"{}\", token='x')",
    "storage_options={{'account_key': '{}', 'anon': False}}",
]


@few
@given(secret=_secret, template=st.sampled_from(_TEMPLATES))
def test_secrets_are_hidden_wherever_they_are_named(secret, template):
    assert secret not in redact(template.format(secret))


@few
@given(secret=_quoted.filter(lambda s: len(s.strip()) > 9), template=st.sampled_from(_QUOTED))
def test_secrets_in_quotes_are_hidden_to_their_ends(secret, template):
    """Whatever they hold: a part of a password is half of a password."""
    shown = redact(template.format(secret))
    assert secret[-6:] not in shown or secret[-6:] in template


@few
@given(user=_secret, template=st.sampled_from(["s3://{}:x@host/b", "see az://me:{}@host, please"]))
def test_users_and_passwords_of_addresses_are_hidden(user, template):
    user = user.replace("/", "%2F")
    assert user not in redact(template.format(user))


@few
@given(secret=_quoted.filter(lambda s: s not in "***"), before=_text, after=_text)
def test_secrets_that_were_remembered_are_hidden_anywhere(secret, before, after):
    from curation.sources import secrets

    known = set(secrets._known)
    try:
        remember(secret)
        assert secret not in redact(before + secret + after)
    finally:
        secrets._known.clear()
        secrets._known.update(known)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('{"password": "a;b c", "x": 1}', '{"password": "***", "x": 1}'),
        ("secret='it, \"too\"' left", "secret='***' left"),
        ('token="never closed & more', 'token="***'),
        ("sig=abc&se=1, then", "sig=***&se=***, then"),
    ],
)
def test_what_stands_around_a_secret_stays(text, shown):
    assert redact(text) == shown
