"""The prediction log's Parquet files, read by DuckDB: rows of a model as columns of arrays, and SQL for operators.

The only module that imports duckdb. A connection reads the lake and nothing else; SQL that came from an operator is
checked to be one query (or one condition) before it runs, so it can write nothing either.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Final

import duckdb
import numpy as np
import numpy.typing as npt

from gateway.drift.report.feature_columns import FeatureNaming
from gateway.drift.report.file_groups import FileGroup, alike, newest, placed, union
from gateway.drift.report.lake_files import LakeFile, by_schema, feedback_files, prediction_files
from gateway.drift.report.lake_selection import Census, QueryResult, Selection
from gateway.drift.report.lake_sql import (
    LABELS,
    LAST_LABELS,
    NO_FEEDBACK,
    NO_LABELS,
    NO_PREDICTIONS,
    REPEATED,
    drawn,
    is_condition,
    quoted,
    read_files,
    text,
)
from gateway.drift.report.sound_files import SoundFiles
from gateway.errors import InvalidArgument, Unavailable
from gateway.records.lake.lake_lock import hold
from gateway.records.worker.feature_names import FEATURE, from_metadata

Array = npt.NDArray[Any]
_MINUTE_US: Final = 60_000_000


class Lake:
    """An open reader of `<data-dir>/log/lake`.

    Units: `memory_mb` bounds DuckDB; what does not fit goes to a temporary folder.
    """

    def __init__(self, directory: Path, *, threads: int = 2, memory_mb: int = 900) -> None:
        self._held = hold(directory)
        self._spill = TemporaryDirectory(prefix="gateway-query-")
        # Under a name of our own: DuckDB takes brackets and stars in a path for a pattern.
        self._directory = Path(self._spill.name, "lake")
        self._directory.symlink_to(directory.resolve(), target_is_directory=True)
        self._connection = duckdb.connect(
            config={
                "threads": threads,
                "memory_limit": f"{memory_mb}MB",
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
            }
        )
        for setting in (
            "TimeZone = 'UTC'",
            f"temp_directory = {text(f'{self._spill.name}/spilled')}",
            f"allowed_directories = [{text(str(self._directory))}]",
            "enable_progress_bar = false",
            "enable_external_access = false",
            "lock_configuration = true",
        ):
            self._connection.execute(f"SET {setting}")
        self._feedback_of: str | None = None
        self._listed: dict[str, list[LakeFile]] = {}
        self._described: dict[str, dict[str, str]] = {}
        self._named: dict[str, dict[str, str]] = {}
        self._sound = SoundFiles()

    @property
    def left_out(self) -> list[str]:
        """The damaged files that were passed over so far, in words."""
        return self._sound.left_out

    def __enter__(self) -> "Lake":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
        self._spill.cleanup()
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def query(self, sql: str, *, model: str = "") -> QueryResult:
        """The answer to one SELECT over the views `predictions`, `feedback` (as received) and `labels` (the last label
        of each row), of one model or of all.

        Features are called as in the newest files of their version; a query of their tensors' columns is answered, too.
        Raises: InvalidArgument (not one query, or DuckDB refuses it), Unavailable (files went away while it read).
        """
        self._check_query(sql)
        files = self._sound.of(prediction_files(self._directory, model=model or None))
        groups = self._groups(files)
        self._view("predictions", union(alike(groups, places=False)) if files else NO_PREDICTIONS)
        self._view_feedback(model or None)
        try:
            with _told():
                cursor = self._connection.execute(sql)
        except InvalidArgument as error:
            if not any(place in str(error) for group in groups for place in group.named):
                raise
            self._view("predictions", union(alike(groups, places=True)))
            with _told():
                cursor = self._connection.execute(sql)
        columns = tuple(column[0] for column in cursor.description or ())
        return QueryResult(columns, _rows(cursor))

    def columns(self, selection: Selection) -> dict[str, str]:
        """The columns of the selection's files and their SQL types, features at their places; none without a file."""
        if not self._files(selection):
            return {}
        groups, naming = self._placed(selection)
        places, names = {*naming.columns}, {*naming.columns.values()}
        for group in groups:
            places.update(group.named)
            names.update(group.named.values())
        described = self._execute(f"DESCRIBE {union(groups)}").fetchall()
        return {name: kind for name, kind, *_ in described if name in places or name not in names}

    def feature_names(self, selection: Selection) -> dict[str, str]:
        """What the newest files of the selection call the features, by their places; empty where they have no names."""
        naming = newest(self._groups(self._files(selection)))
        return {place: name.removeprefix(FEATURE) for place, name in naming.columns.items()}

    def models(self) -> tuple[str, ...]:
        """The models that have rows in the lake."""
        return tuple(sorted({file.model for file in prediction_files(self._directory)}))

    def census(self, selection: Selection) -> Census:
        """Returns how many rows the selection has, without reading them.

        Raises: InvalidArgument (the condition is none), Unavailable.
        """
        if not self._files(selection):
            self.condition(selection.where)
            empty = np.zeros(0)
            return Census(
                empty.astype(str), empty.astype(str), empty.astype(np.int64), empty.astype(np.int64), empty, empty
            )
        groups = self._execute(
            f"""SELECT version, arm, epoch_us(ts) // {_MINUTE_US} * {_MINUTE_US} AS minute_us, count(*) AS rows,
            sum(1 / sample_p::DOUBLE) AS weights, sum((1 / sample_p::DOUBLE) ** 2) AS squares
            FROM {self._source(selection)} GROUP BY ALL ORDER BY minute_us, version, arm"""
        ).fetchnumpy()
        return Census(
            _plain(groups["version"]), _plain(groups["arm"]), _plain(groups["minute_us"]).astype(np.int64),
            _plain(groups["rows"]).astype(np.int64), _plain(groups["weights"]), _plain(groups["squares"]),
        )  # fmt: skip

    def fetch(self, selection: Selection, expressions: Mapping[str, str], *, share: float = 1.0) -> dict[str, Array]:
        """The selection's rows as arrays, in the order of the files; masked where there are nulls.

        `expressions` are SQL by the name that the array gets; of the gateway's own making, never an operator's. Where
        `share` is below 1, that share of the rows, always the same ones.
        """
        listed = ", ".join(f"{expression} AS {quoted(name)}" for name, expression in expressions.items())
        if not self._files(selection):
            return {name: np.zeros(0) for name in expressions}
        part = f" WHERE {drawn(share)}" if share < 1 else ""
        return dict(self._execute(f"SELECT {listed} FROM {self._source(selection)}{part}").fetchnumpy())

    def requests(
        self, selection: Selection, expressions: Mapping[str, str], *, share: float = 1.0, size: int = 256
    ) -> Iterator[list[tuple[Any, ...]]]:
        """Yields the selection's rows, at most `size` at a time: those of a request together and in order, requests in
        an order that means nothing. Where `share` is below 1, that share of the requests, always the same ones.

        `expressions` are SQL by name, of the gateway's own making, never an operator's.
        Order: nothing else may be asked of the lake until the last row has come.
        """
        if not self._files(selection):
            return
        listed = ", ".join(f"{expression} AS {quoted(name)}" for name, expression in expressions.items())
        drawn_by = "hash(boot, wal_seq, record)"
        part = f" WHERE {drawn_by} < {int(share * 2**64)}::UBIGINT" if share < 1 else ""
        cursor = self._execute(
            f"SELECT {listed} FROM {self._source(selection)}{part} "
            f"ORDER BY {drawn_by}, boot, wal_seq, record, row_index"
        )
        while True:
            with _told():
                rows = cursor.fetchmany(size)
            if not rows:
                return
            yield rows

    def tally(
        self, selection: Selection, column: str, *, beside: Sequence[str] = ()
    ) -> tuple[list[Any], npt.NDArray[np.float64]]:
        """The distinct values of a column, None included, and the rows (by weight) that have each; without `beside`."""
        if not self._files(selection):
            return [], np.zeros(0)
        rest = f" WHERE {quoted(column)} NOT IN ({', '.join(text(value) for value in beside)})" if beside else ""
        groups = self._execute(
            f"""SELECT {quoted(column)} AS value, sum(1 / sample_p::DOUBLE) AS weight
            FROM {self._source(selection)}{rest} GROUP BY ALL ORDER BY value"""
        ).fetchall()
        return [value for value, _ in groups], np.array([weight for _, weight in groups], np.float64)

    def labelled(self, selection: Selection, expressions: Mapping[str, str], *, share: float = 1.0) -> dict[str, Array]:
        """The rows of the selection that have a label, with columns of `p` (the row) and `l` (its last label). Where
        `share` is below 1, that share of them, always the same ones."""
        if not self._files(selection) or not self._join_labels(selection.model):
            return {name: np.zeros(0) for name in expressions}
        listed = ", ".join(f"{expression} AS {quoted(name)}" for name, expression in expressions.items())
        part = f" AND {drawn(share, 'p.')}" if share < 1 else ""
        return dict(
            self._execute(
                f"""SELECT {listed} FROM {self._source(selection)} AS p JOIN last_labels AS l
                ON p.request_hash = l.request_hash AND p.row_index = l.row_index
                WHERE (l.label_num IS NOT NULL OR l.label_text IS NOT NULL){part}"""
            ).fetchnumpy()
        )

    def rewards(self, selection: Selection) -> tuple[int, float, float]:
        """Returns how many rows of the selection have a reward, its mean and its standard deviation."""
        if not self._files(selection) or not self._join_labels(selection.model):
            return 0, float("nan"), float("nan")
        rows = self._execute(
            f"""SELECT count(l.reward), avg(l.reward), stddev_samp(l.reward) FROM {self._source(selection)} AS p
            JOIN last_labels AS l ON p.request_hash = l.request_hash AND p.row_index = l.row_index"""
        ).fetchall()
        count, mean, sd = rows[0]
        return int(count), float("nan") if mean is None else float(mean), float("nan") if sd is None else float(sd)

    def label_count(self, model: str) -> int:
        """Returns how many rows of the model have feedback, whenever they were asked."""
        if not self._join_labels(model):
            return 0
        return int(self._execute("SELECT count(*) FROM last_labels").fetchall()[0][0])

    def label_texts(self, model: str, limit: int) -> list[str]:
        """The different texts that labels of the model have, at most so many, in order."""
        if not self._join_labels(model):
            return []
        sql = f"SELECT DISTINCT label_text FROM last_labels WHERE label_text IS NOT NULL ORDER BY 1 LIMIT {limit}"
        return [str(value) for (value,) in self._execute(sql).fetchall()]

    def paired(self, primary: Selection, other: Selection, expressions: Mapping[str, str]) -> dict[str, Array]:
        """The rows of the same request that both selections hold, with columns of `a`, `b` and `l`, the last label."""
        if not self._files(primary) or not self._files(other):
            return {name: np.zeros(0) for name in expressions}
        labels = "last_labels" if self._join_labels(primary.model) else f"({NO_LABELS})"
        listed = ", ".join(f"{expression} AS {quoted(name)}" for name, expression in expressions.items())
        return dict(
            self._execute(
                f"""SELECT {listed} FROM {self._source(primary)} AS a JOIN {self._source(other)} AS b
                ON a.request_hash = b.request_hash AND a.row_index = b.row_index
                LEFT JOIN {labels} AS l ON a.request_hash = l.request_hash AND a.row_index = l.row_index"""
            ).fetchnumpy()
        )

    def ask(self, selection: Selection, sql: str) -> dict[str, Array]:
        """The answer, as arrays, to a query of the gateway's own making over `{rows}`, the selection's rows, and
        `{labels}`, the last label of each row. The selection must have files."""
        labels = "last_labels" if self._join_labels(selection.model) else f"({NO_LABELS})"
        sql = sql.replace("{labels}", labels).replace("{rows}", self._source(selection))
        return dict(self._execute(sql).fetchnumpy())

    def _files(self, selection: Selection) -> list[LakeFile]:
        """The files that may hold rows of the selection, of those that were there when the model was first asked."""
        if selection.model not in self._listed:
            self._listed[selection.model] = prediction_files(self._directory, model=selection.model)
        return self._sound.of(
            [file for file in self._listed[selection.model] if file.may_hold(selection.versions, selection.span)]
        )

    def _source(self, selection: Selection) -> str:
        """The selection's rows as a parenthesised query."""
        conditions = [
            "true" if selection.failed else "status = 0",
            selection.copies,
            f"ts >= make_timestamptz({selection.span.start_us})",
            f"ts < make_timestamptz({selection.span.end_us})",
        ]
        if selection.arms:
            conditions.append(f"arm IN ({', '.join(text(arm) for arm in selection.arms)})")
        if selection.where:
            conditions.append(self.condition(selection.where))
        return f"(SELECT * FROM ({union(self._placed(selection)[0])}) WHERE {' AND '.join(conditions)})"

    def _placed(self, selection: Selection) -> tuple[list[FileGroup], FeatureNaming]:
        """The files that may hold rows of the selection, features at their places and with their names."""
        groups = self._groups(self._files(selection))
        naming = selection.naming if selection.naming.columns else newest(groups)
        return placed(groups, naming, as_sent=selection.as_sent), naming

    def _groups(self, files: Sequence[LakeFile]) -> list[FileGroup]:
        """The files of each shape; whether the oldest and the newest differ says whether another release wrote."""
        groups = []
        for own in by_schema(files):
            columns = [self._columns_of(file) for file in ((own[0], own[-1]) if len(own) > 1 else (own[0],))]
            named = self._names_of(own[-1])
            groups.append(FileGroup(own, {**columns[-1], **columns[0]}, columns[0] != columns[-1], named))
        return groups

    def _columns_of(self, file: LakeFile) -> dict[str, str]:
        if file.path not in self._described:
            rows = self._execute(f"DESCRIBE SELECT * FROM {read_files([file], union=False)}").fetchall()
            self._described[file.path] = {name: kind for name, kind, *_ in rows}
        return self._described[file.path]

    def _names_of(self, file: LakeFile) -> dict[str, str]:
        """The columns by place that the file says its features have."""
        if file.path not in self._named:
            rows = self._execute(f"SELECT key, value FROM parquet_kv_metadata({text(file.path)})").fetchall()
            self._named[file.path] = from_metadata({bytes(key): bytes(value) for key, value in rows})
        return self._named[file.path]

    def _join_labels(self, model: str) -> bool:
        """Returns whether the model has feedback; if so, `last_labels` holds the last label of each of its rows."""
        if self._feedback_of == model:
            return True
        if not self._sound.of(feedback_files(self._directory, model=model)):
            return False
        self._view_feedback(model)
        self._execute(f"CREATE OR REPLACE TEMP TABLE repeated AS {REPEATED}")
        self._execute(f"CREATE OR REPLACE TEMP TABLE last_labels AS {LAST_LABELS}")
        self._feedback_of = model
        return True

    def _view(self, name: str, sql: str) -> None:
        self._execute(f"CREATE OR REPLACE TEMP VIEW {name} AS {sql}")

    def _view_feedback(self, model: str | None) -> None:
        files = self._sound.of(feedback_files(self._directory, model=model))
        self._view("feedback", union(self._groups(files)) if files else NO_FEEDBACK)
        self._view("labels", LABELS)

    def _check_query(self, sql: str, prefix: str = "") -> None:
        with _told(prefix):
            statements = self._connection.extract_statements(sql)
        kinds = [str(statement.type).rpartition(".")[2] for statement in statements]
        if kinds != ["SELECT"]:
            raise InvalidArgument(f"{prefix}the query is {' and '.join(kinds) or 'empty'}, allowed is one SELECT")

    def condition(self, where: str) -> str:
        """The condition in parentheses.

        Raises: InvalidArgument (more or less than one expression).
        """
        if not where.strip():
            return "(true)"
        # A comment at its end must not swallow the parenthesis.
        wrapped = f"({where}\n)"
        prefix = f"where {where!r}: "
        self._check_query(f"SELECT {wrapped}", prefix)
        with _told(prefix):
            [(serialised,)] = self._connection.execute("SELECT json_serialize_sql(?)", [f"SELECT {wrapped}"]).fetchall()
        if not is_condition(serialised):
            raise InvalidArgument(f'where {where!r} is no single condition, expected for example "f.age" > 30')
        return wrapped

    def _execute(self, sql: str) -> "duckdb.DuckDBPyConnection":
        with _told():
            return self._connection.execute(sql)


def _plain(values: Array) -> Array:
    return np.ma.filled(values, "") if isinstance(values, np.ma.MaskedArray) else values


def _rows(cursor: "duckdb.DuckDBPyConnection") -> Iterator[tuple[Any, ...]]:
    while True:
        with _told():
            rows = cursor.fetchmany(1000)
        if not rows:
            return
        yield from rows


@contextmanager
def _told(prefix: str = "") -> Iterator[None]:
    """DuckDB's refusals as errors of the gateway's."""
    try:
        yield
    except duckdb.IOException as error:
        if "No files found" in str(error) or "No such file" in str(error):
            raise Unavailable("files of the lake were merged or expired while they were read: try again") from None
        raise InvalidArgument(f"{prefix}{error}") from None
    except duckdb.OutOfMemoryException as error:
        raise InvalidArgument(f"{prefix}the query needs more memory than it is given: {error}") from None
    except duckdb.BinderException as error:  # then comes a piece of SQL, most of it not the caller's
        told = " ".join(str(error).partition("\n\nLINE ")[0].split())
        raise InvalidArgument(f"{prefix}{told}") from None
    except duckdb.Error as error:
        raise InvalidArgument(f"{prefix}{error}") from None
