"""Rows of the lake by model, time, version, arm and condition; labels joined; SQL that can only read."""

import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gateway.drift.report.gathering import Question, gather
from gateway.drift.report.lake_reader import Lake
from gateway.drift.report.lake_selection import Selection
from gateway.drift.report.reference import reference_window
from gateway.drift.report.span import Span
from gateway.errors import FailedPrecondition, InvalidArgument, Unavailable
from gateway.records.worker.sampling import CHOSEN_COPY, Sampling
from tests.drift.lakes import DAY_US, START_US, lake_of, write_labels, write_rows

ROWS = 600
WEEK = Span(START_US, START_US + 7 * DAY_US)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two versions over three days, another model whose `x` is a list, and labels that come late and twice."""
    folder = tmp_path_factory.mktemp("data")
    moments = START_US + np.arange(ROWS) * (3 * DAY_US // ROWS)
    x = np.arange(ROWS * 2, dtype="<f4").reshape(ROWS, 2)
    town = np.array(["north", "south", "o'ster"], object)[np.arange(ROWS) % 3]
    scores = np.column_stack([x[:, 0] * 0 + 0.25, x[:, 0] * 0 + 0.75]).astype("<f4")
    half = ROWS // 2
    first = write_rows(folder, moments[:half], {"x": x[:half], "town": town[:half]}, {"p": scores[:half]})
    write_rows(
        folder, moments[half:], {"x": x[half:], "town": town[half:]}, {"p": scores[half:]}, version="2", arm="canary",
        codes=[13] * 10 + [0] * (half - 10),
    )  # fmt: skip
    write_rows(folder, moments[:5], {"x": np.zeros((5, 2, 2), "<f4")}, {"p": np.zeros(5, "<f4")}, model="o'ther/m*")
    write_labels(folder, first[:100], [0.0] * 100, moments[:100].tolist())
    write_labels(folder, first[:50], [1.0] * 50, (moments[:50] + 1).tolist())
    write_labels(folder, first[50:60], [1.0] * 10, (moments[50:60] - 1).tolist())  # older: does not count
    write_labels(folder, first[:3], [None] * 3, (moments[:3] + 5).tolist(), rewards=[2.5] * 3)
    return folder


def chosen(data_dir: Path, selection: Selection) -> np.ndarray:
    with Lake(lake_of(data_dir)) as lake:
        return np.sort(np.asarray(lake.fetch(selection, {"x": '"f.x_0"'})["x"])) / 2


def test_rows_come_by_time_to_the_microsecond_version_and_arm(data_dir: Path) -> None:
    every = chosen(data_dir, Selection("homes", WEEK))
    assert every.tolist() == [*range(300), *range(310, 600)]  # those that failed have no answer to look at
    step = 3 * DAY_US // ROWS
    some = chosen(data_dir, Selection("homes", Span(START_US + 10 * step, START_US + 20 * step)))
    assert some.tolist() == list(range(10, 20))
    assert len(chosen(data_dir, Selection("homes", WEEK, versions=("1",)))) == 300
    assert len(chosen(data_dir, Selection("homes", WEEK, arms=("canary",)))) == 290
    assert len(chosen(data_dir, Selection("homes", WEEK, versions=("3",)))) == 0
    assert len(chosen(data_dir, Selection("nobody", WEEK))) == 0


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ("\"f.town\" = 'north'", 196),
        ('"f.x_0" < 20 OR "f.x_0" >= 1190 -- the ends', 15),
        ("", 590),
        ("request_hash IN (SELECT request_hash FROM predictions WHERE false)", None),
        ("(\"f.x_0\" > 5) AND (arm = 'stable')", 297),
    ],
)
def test_a_condition_narrows(data_dir: Path, where: str, rows: int | None) -> None:
    if rows is None:
        with pytest.raises(InvalidArgument, match="predictions"):
            chosen(data_dir, Selection("homes", WEEK, where=where))
    else:
        assert len(chosen(data_dir, Selection("homes", WEEK, where=where))) == rows


@pytest.mark.parametrize(
    "where",
    [
        "true) UNION ALL (SELECT 1", "true; SELECT 1", "1, 2", " ;", "true) --", "FROM predictions",
        "COPY (SELECT 1) TO 'x'", "true ORDER BY 1", "nonsense =", "no_such_column > 1",
    ],
)  # fmt: skip
def test_a_condition_is_one_expression(data_dir: Path, where: str) -> None:
    with Lake(lake_of(data_dir)) as lake, pytest.raises(InvalidArgument):
        lake.census(Selection("homes", WEEK, where=where))


def test_a_condition_is_checked_where_nothing_is_there(data_dir: Path) -> None:
    with Lake(lake_of(data_dir)) as lake, pytest.raises(InvalidArgument, match="single condition"):
        lake.census(Selection("nobody", WEEK, where="1, 2"))


def test_a_census_counts_by_version_arm_and_minute(data_dir: Path) -> None:
    with Lake(lake_of(data_dir)) as lake:
        census = lake.census(Selection("homes", WEEK))
    assert census.total == 590
    assert not census.sampled
    assert sorted({*zip(census.versions.tolist(), census.arms.tolist(), strict=True)}) == [
        ("1", "stable"), ("2", "canary"),
    ]  # fmt: skip
    assert (np.diff(census.minutes_us) >= 0).all()
    assert census.minutes_us[0] == START_US


def test_a_row_that_was_sampled_stands_for_others(tmp_path: Path) -> None:
    moments = START_US + np.arange(4000)
    write_rows(tmp_path, moments, {"x": np.zeros((4000, 1), "<f4")}, {"y": np.zeros(4000, "<f4")},
               sampling=Sampling(rate=0.25))  # fmt: skip
    with Lake(lake_of(tmp_path)) as lake:
        census = lake.census(Selection("homes", WEEK))
    assert census.sampled
    assert census.weights.sum() == pytest.approx(census.total * 4)
    assert census.weights.sum() == pytest.approx(4000, rel=0.2)
    assert census.squares.sum() == pytest.approx(census.total * 16)


def test_a_tally_counts_texts_nulls_included(data_dir: Path) -> None:
    with Lake(lake_of(data_dir)) as lake:
        values, weights = lake.tally(Selection("homes", WEEK, versions=("1",)), "f.town")
    assert dict(zip(values, weights.tolist(), strict=True)) == {"north": 100.0, "o'ster": 100.0, "south": 100.0}


def test_the_last_label_of_a_row_wins(data_dir: Path) -> None:
    with Lake(lake_of(data_dir)) as lake:
        selection = Selection("homes", WEEK)
        fetched = lake.labelled(
            selection,
            {"x": 'p."f.x_0"', "label": "l.label_num", "late": "epoch_us(l.first_received_ts) - epoch_us(p.ts)"},
        )
        nothing = lake.labelled(Selection("o'ther/m*", WEEK), {"label": "l.label_num"})
    order = np.argsort(fetched["x"])
    assert fetched["label"][order].tolist() == [1.0] * 50 + [0.0] * 50
    assert (fetched["late"][order][60:] == 3_600_000_000).all()
    assert len(nothing["label"]) == 0


def test_two_versions_of_one_request_are_paired(tmp_path: Path) -> None:
    moments = START_US + np.arange(40)
    x, names = np.zeros((40, 1), "<f4"), [f"r{index}" for index in range(40)]
    write_rows(tmp_path, moments, {"x": x}, {"y": np.arange(40, dtype="<f4")}, names=names)
    write_rows(tmp_path, moments[:30], {"x": x[:30]}, {"y": np.arange(30, dtype="<f4") + 1}, names=names[:30],
               version="2", shadow_of="1")  # fmt: skip
    with Lake(lake_of(tmp_path)) as lake:
        a, b = Selection("homes", WEEK, versions=("1",)), Selection("homes", WEEK, versions=("2",), shadow=True)
        fetched = lake.paired(a, b, {"a": 'a."out.y"', "b": 'b."out.y"'})
        assert lake.census(Selection("homes", WEEK)).total == 40
    assert (fetched["b"] - fetched["a"]).tolist() == [1.0] * 30


def test_copies_that_were_chosen_because_they_differ_are_left_out(tmp_path: Path) -> None:
    moments = START_US + np.arange(40)
    x, names = np.zeros((40, 1), "<f4"), [f"r{index}" for index in range(40)]
    write_rows(tmp_path, moments, {"x": x}, {"y": np.zeros(40, "<f4")}, names=names)
    for version, rows, reason in (("2", 30, "SHADOW"), ("3", 5, CHOSEN_COPY)):
        write_rows(tmp_path, moments[:rows], {"x": x[:rows]}, {"y": np.ones(rows, "<f4")}, names=names[:rows],
                   version=version, shadow_of="1", reason=reason)  # fmt: skip
    with Lake(lake_of(tmp_path)) as lake:
        copies = Selection("homes", WEEK, shadow=True)
        assert [lake.census(one).total for one in (copies, replace(copies, chosen=True))] == [30, 5]
        only = Selection("homes", WEEK, versions=("3",))
        primary = replace(only, versions=("1",))
        paired = lake.paired(primary, replace(only, shadow=True), {"b": 'b."out.y"'})
        assert len(paired["b"]) == 0
        reference = reference_window(lake, primary, rng=np.random.default_rng(0), created_at=0.0)
        question = Question(only, 0, WEEK.end_us)
        with pytest.raises(FailedPrecondition, match=r"no logged rows in .*, but for 5 copies that a mirror"):
            gather(question, lake, reference)
        both = replace(primary, versions=("1", "3"))
        report = gather(replace(question, selection=both), lake, reference)
    assert report.comparison is not None
    assert report.comparison.agreement is None
    assert "not known: there are 5 copies" in " ".join(report.comparison.notes)


def test_sql_sees_every_model_and_labels(data_dir: Path) -> None:
    with Lake(lake_of(data_dir)) as lake:
        answer = lake.query("SELECT model, count(*) AS rows FROM predictions GROUP BY model ORDER BY model")
        assert answer.columns == ("model", "rows")
        assert list(answer.rows) == [("homes", 600), ("o'ther/m*", 5)]
        [(labels, last, rewards)] = lake.query(
            "SELECT (SELECT count(*) FROM feedback), count(label_num), count(reward) FROM labels"
        ).rows
        assert (labels, last, rewards) == (163, 100, 3)
        [(rows,)] = lake.query("SELECT count(*) FROM predictions", model="o'ther/m*").rows
        assert rows == 5
        assert lake.models() == ("homes", "o'ther/m*")


def test_sql_over_an_empty_lake_finds_nothing(tmp_path: Path) -> None:
    with Lake(lake_of(tmp_path)) as lake:
        answer = lake.query("SELECT p.version, label_num FROM predictions p JOIN feedback f USING (request_hash)")
        assert list(answer.rows) == []
        assert lake.census(Selection("homes", WEEK)).total == 0
        assert lake.columns(Selection("homes", WEEK)) == {}
        with pytest.raises(InvalidArgument, match="no_such"):
            lake.query("SELECT no_such FROM predictions")


def documented() -> list[str]:
    """Every query of the log that the documents show."""
    root = Path(__file__).parents[2]
    texts = [path.read_text("utf-8") for path in (root / "README.md", *sorted((root / "docs").rglob("*.md")))]
    quoted = [match[2] for text in texts for match in re.finditer(r"log query ([\"'])(SELECT [^.].*?)\1", text)]
    blocks = [match[1] for text in texts for match in re.finditer(r"```sql\n(SELECT .*?);", text, re.DOTALL)]
    return quoted + blocks


@pytest.mark.parametrize("sql", documented())
def test_documented_queries_are_right_before_anything_was_logged(tmp_path: Path, data_dir: Path, sql: str) -> None:
    with Lake(lake_of(tmp_path)) as lake:
        assert list(lake.query(sql).rows) == []
    with Lake(lake_of(data_dir)) as lake:
        list(lake.query(sql).rows)


@pytest.mark.parametrize(
    "sql",
    [
        "COPY predictions TO '{lake}/stolen.parquet'",
        "COPY (SELECT 1) TO '/tmp/stolen.csv'",
        "SELECT 1; COPY (SELECT 1) TO '{lake}/stolen.csv'",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('{outside}')",
        "SELECT * FROM glob('/etc/*')",
        "SELECT * FROM '{outside}'",
        "SELECT * FROM query('COPY (SELECT 1) TO ''{lake}/stolen.csv''')",
        "ATTACH '{lake}/stolen.db'",
        "CREATE TABLE t AS SELECT 1",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{lake}/stolen.csv'",
        "EXPORT DATABASE '{lake}/stolen'",
        "INSTALL httpfs",
        "SET enable_external_access = true",
        "RESET lock_configuration",
        "PRAGMA database_list",
        "DROP VIEW predictions",
        "",
        "SELECT",
    ],
)
def test_sql_can_only_read_and_only_the_lake(data_dir: Path, tmp_path: Path, sql: str) -> None:
    outside = tmp_path / "secret.csv"
    outside.write_text("secret\n1\n")
    before = {path: path.stat().st_mtime_ns for path in lake_of(data_dir).rglob("*")}
    with Lake(lake_of(data_dir)) as lake, pytest.raises(InvalidArgument):
        list(lake.query(sql.format(lake=lake_of(data_dir), outside=outside)).rows)
    assert {path: path.stat().st_mtime_ns for path in lake_of(data_dir).rglob("*")} == before
    assert not os.path.exists("/tmp/stolen.csv")


def test_a_query_larger_than_memory_goes_to_disk_or_is_refused_in_words(data_dir: Path) -> None:
    with Lake(lake_of(data_dir), memory_mb=60) as lake:
        answer = lake.query("SELECT count(*) FROM (SELECT DISTINCT hash(range) FROM range(1500000))")
        try:
            assert list(answer.rows) == [(1_500_000,)]
        except InvalidArgument as error:
            assert "memory" in str(error)  # noqa: PT017


def test_a_column_that_is_a_list_in_one_model_and_a_number_in_another_is_text(tmp_path: Path) -> None:
    moments = START_US + np.arange(2)
    x = np.zeros((2, 1), "<f4")
    write_rows(tmp_path, moments, {"x": x}, {"y": np.array([1.5, 2.5], "<f4")}, model="a")
    write_rows(tmp_path, moments, {"x": x}, {"y": np.ones((2, 2, 2), "<f4")}, model="b")
    write_rows(tmp_path, moments, {"x": x.astype("<f8")}, {"z": np.ones(2, "<i8")}, model="c")
    with Lake(lake_of(tmp_path)) as lake:
        rows = list(lake.query('SELECT model, "out.y", "f.x", "out.z" FROM predictions ORDER BY model, ts').rows)
        alone = list(lake.query('SELECT "out.y" FROM predictions ORDER BY ts', model="a").rows)
    assert [row[1] for row in rows] == ["1.5", "2.5", *["[1.0, 1.0, 1.0, 1.0]"] * 2, None, None]
    assert [row[2] for row in rows] == [0.0] * 6
    assert [row[3] for row in rows] == [None] * 4 + [1, 1]
    assert alone == [(1.5,), (2.5,)]


def test_files_that_went_away_are_no_crash(tmp_path: Path) -> None:
    """Retention removes a file between the look at the folder and the read."""
    moments = START_US + np.arange(4) * 3_600_000_000
    write_rows(tmp_path, moments, {"x": np.zeros((4, 1), "<f4")}, {"y": np.zeros(4, "<f4")})
    with Lake(lake_of(tmp_path)) as lake:
        selection = Selection("homes", WEEK)
        assert lake.census(selection).total == 4
        sorted(lake_of(tmp_path).glob("predictions/model_dir=*/*/*/*/*.parquet"))[1].unlink()
        with pytest.raises(Unavailable, match="try again"):
            lake.fetch(selection, {"x": '"f.x"'})


def test_what_is_no_file_of_the_lake_is_passed_over(tmp_path: Path) -> None:
    write_rows(tmp_path, START_US + np.arange(3), {"x": np.zeros((3, 1), "<f4")}, {"y": np.zeros(3, "<f4")})
    folder = next(lake_of(tmp_path).glob("predictions/model_dir=*/version_dir=*"))
    for name in ("notes.txt", "date=today/hour=00/a.parquet", "date=2026-02-31/hour=00/a.parquet", "stray.parquet"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("not Parquet")
    with Lake(lake_of(tmp_path)) as lake:
        assert lake.census(Selection("homes", WEEK)).total == 3


def test_a_data_directory_may_have_any_name(tmp_path: Path) -> None:
    odd = tmp_path / "it's [a] *star?"
    write_rows(odd, START_US + np.arange(3), {"x": np.zeros((3, 1), "<f4")}, {"y": np.zeros(3, "<f4")})
    with Lake(lake_of(odd)) as lake:
        assert lake.census(Selection("homes", WEEK)).total == 3
        assert list(lake.query("SELECT count(*) FROM predictions").rows) == [(3,)]
