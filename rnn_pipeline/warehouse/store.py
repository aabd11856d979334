"""The warehouse: who may open the file, how a batch is written, and reads as of any moment."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import tenacity

from rnn_pipeline.warehouse.schema import OPEN_TABLES, SCHEMA_VERSION, TABLES, VIEWS

if TYPE_CHECKING:
    import pandas as pd

#: A condition on one column: a value, a list of values, or an inclusive ``(first, last)`` pair.
Condition = str | int | date | Sequence[Any] | tuple[Any, Any]


class WarehouseError(RuntimeError):
    """The warehouse cannot be used; the message says why and what to do."""


class WarehouseLocked(WarehouseError):
    """Another process holds the file and did not let go in time."""


class WarehouseVersionError(WarehouseError):
    """The warehouse has another layout than this program's, or none.

    Args:
        place: the file, or what a lake calls itself.
        found: its schema version; None where it has none.
    """

    def __init__(self, place: object, found: int | None) -> None:
        if found is None:
            way = "it is no warehouse: move it away, or set another place for one"
        elif found > SCHEMA_VERSION:
            way = "install the newer program that wrote it, or set another place for one"
        else:
            way = "run `rnn-pipeline upgrade`, after which the old state can still be had"
        super().__init__(
            f"warehouse {place} has schema version {'no' if found is None else found}, this program"
            f" writes version {SCHEMA_VERSION}: {way}"
        )


class _Busy(Exception):
    """DuckDB refused to open the file because another process has it open."""


def _where(conditions: Mapping[str, Condition | None]) -> tuple[str, list[Any]]:
    """SQL and parameters for conditions joined by AND; None means no condition."""
    clauses: list[str] = []
    parameters: list[Any] = []
    for column, condition in conditions.items():
        if condition is None:
            continue
        if isinstance(condition, tuple):
            clauses.append(f"{column} BETWEEN ? AND ?")
            parameters.extend(condition)
        elif isinstance(condition, Sequence) and not isinstance(condition, str):
            clauses.append(f"{column} IN (SELECT unnest(?))")
            parameters.append(list(condition))
        else:
            clauses.append(f"{column} = ?")
            parameters.append(condition)
    return " AND ".join(clauses) or "TRUE", parameters


def _frame(result: duckdb.DuckDBPyConnection) -> pd.DataFrame:
    with warnings.catch_warnings():
        # DuckDB 2.0 hands pandas a keyword that pandas 4 will drop.
        warnings.filterwarnings("ignore", message="The inplace keyword")
        return result.df()


class Batch:
    """Writes of one transaction. Get one from :meth:`Warehouse.batch`."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection

    def append(self, table: str, frame: pd.DataFrame) -> int:
        """Insert the rows of a frame by column name and return how many there were.

        Columns that the table does not have are left out, except in the tables that grow a
        column per feature; columns missing in the frame become NULL.
        """
        return self._insert("INSERT", table, frame)

    def upsert(self, table: str, frame: pd.DataFrame) -> int:
        """Insert as :meth:`append` does, in the place of rows with the same primary key."""
        return self._insert("INSERT OR REPLACE", table, frame)

    def _insert(self, verb: str, table: str, frame: pd.DataFrame) -> int:
        if frame.empty:
            return 0
        if table in OPEN_TABLES:
            self._add_columns(table, frame)
        known = self._columns(table)
        names = [name for name in frame.columns if name in known]
        columns = ", ".join(f'"{name}"' for name in names)
        self._connection.register("incoming", frame[names])
        self._connection.execute(f"{verb} INTO {table} ({columns}) SELECT {columns} FROM incoming")
        # After an error the transaction takes no further command; the name goes with it.
        self._connection.unregister("incoming")
        return len(frame)

    def replace(self, table: str, frame: pd.DataFrame, **conditions: Condition | None) -> int:
        """Delete the rows that meet the conditions, insert the frame, return its row count.

        Raises:
            ValueError: no condition was given, which would empty the table.
        """
        where, parameters = _where(conditions)
        if not parameters:
            raise ValueError(f"replace({table!r}) needs a condition; it would empty the table")
        self._connection.execute(f"DELETE FROM {table} WHERE {where}", parameters)
        return self.append(table, frame)

    def take_in(self, table: str, file: Path) -> None:
        """Insert the rows of a Parquet file by column name, value for value."""
        rows = "FROM read_parquet(?)"
        if table in OPEN_TABLES:
            self._add_columns(table, self.read(f"SELECT * {rows} LIMIT 0", [str(file)]))
        self._connection.execute(f"INSERT INTO {table} BY NAME SELECT * {rows}", [str(file)])

    def read(self, sql: str, parameters: Sequence[Any] = ()) -> pd.DataFrame:
        """Run a query inside the transaction."""
        return _frame(self._connection.execute(sql, list(parameters)))

    def _columns(self, table: str) -> set[str]:
        rows = self._connection.execute(
            "SELECT column_name FROM duckdb_columns()"
            " WHERE database_name = current_database() AND table_name = ?",
            [table],
        ).fetchall()
        return {row[0] for row in rows}

    def _add_columns(self, table: str, frame: pd.DataFrame) -> None:
        known = self._columns(table)
        for name, dtype in frame.dtypes.items():
            if name in known:
                continue
            if not re.fullmatch(r"[a-z][a-z0-9_]*", str(name)) or dtype.kind not in "fiu":
                raise ValueError(
                    f"{table} cannot take column {name!r} of type {dtype}: features are numbers"
                    " with lower_case_names"
                )
            self._connection.execute(f'ALTER TABLE {table} ADD COLUMN "{name}" DOUBLE')


class Warehouse:
    """One DuckDB file.

    DuckDB lets one process open a file at a time, so a connection is held for the seconds that a
    read or a batch takes and never while something is computed; a second process waits for its
    turn with a jittered retry.

    Args:
        path: the file; it and its folder are created on first use.
        lock_timeout: seconds to wait for another process to let go of the file.
    """

    def __init__(self, path: Path, lock_timeout: float = 60.0) -> None:
        self.path = path
        self.lock_timeout = lock_timeout

    def __str__(self) -> str:
        return str(self.path)

    def exists(self) -> bool:
        """Whether there is anything to read; opening would create it."""
        return self.path.exists()

    def size(self) -> int:
        """Bytes on disk."""
        return self.path.stat().st_size

    @property
    def wal_path(self) -> Path:
        """Where DuckDB keeps commits that are not in the file yet."""
        return self.path.with_name(f"{self.path.name}.wal")

    @contextmanager
    def connection(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open the file, create or check its schema, and close it at the end.

        Raises:
            WarehouseLocked: another process held the file for longer than ``lock_timeout``.
            WarehouseVersionError: the file has another schema version.
            WarehouseError: the file is not a DuckDB database, or is damaged.
        """
        connection = self._open()
        try:
            connection.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false")
            self._ensure_schema(connection)
            yield connection
        finally:
            connection.close()

    @contextmanager
    def batch(self) -> Iterator[Batch]:
        """One transaction: everything in the block is committed together, or nothing is."""
        with self.connection() as connection:
            connection.begin()
            try:
                yield Batch(connection)
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.commit()

    def read(self, sql: str, parameters: Sequence[Any] = ()) -> pd.DataFrame:
        """Run a query and return a frame. DATE comes as naive, TIMESTAMPTZ as UTC datetimes."""
        with self.connection() as connection:
            return _frame(connection.execute(sql, list(parameters)))

    def rows(
        self, table: str, columns: str = "*", /, **conditions: Condition | None
    ) -> pd.DataFrame:
        """Rows of one table or view that meet the conditions, in the order of its first columns."""
        where, parameters = _where(conditions)
        return self.read(f"SELECT {columns} FROM {table} WHERE {where} ORDER BY ALL", parameters)

    def bars(
        self,
        tickers: Iterable[str],
        first: date | None = None,
        last: date | None = None,
        as_of: datetime | None = None,
    ) -> pd.DataFrame:
        """Final bars of ``[first, last]`` as they were known at ``as_of`` (default: now).

        Returns:
            One row per ticker and session, the newest revision with ``known_at <= as_of``.
        """
        return self.read(
            "SELECT * FROM raw_ohlcv"
            " WHERE ticker IN (SELECT unnest(?::VARCHAR[])) AND is_final"
            "   AND session BETWEEN coalesce(?, DATE '0001-01-01')"
            "                   AND coalesce(?, DATE '9999-12-31')"
            "   AND known_at <= coalesce(?, 'infinity'::TIMESTAMPTZ)"
            " QUALIFY revision = max(revision) OVER (PARTITION BY ticker, session)"
            " ORDER BY ticker, session",
            [list(tickers), first, last, as_of],
        )

    def bars_by_era(
        self, tickers: Iterable[str], first: date, last: date, warm_up: int
    ) -> pd.DataFrame:
        """Bars for computing the rows of ``[first, last]``, each from what was known then.

        Row *t* may use what was known when bar *t* was first seen, its *vintage*. As long as a
        ticker's history is only appended to, one copy of it serves all rows. A restatement, or a
        bar that arrives after its successors, starts a new **era**: rows of earlier vintage keep
        the history without it, later ones get the history with it. So a ticker that was restated
        twice comes back as up to three copies, each no longer than its own rows plus warm-up.

        Args:
            tickers: which tickers.
            first: first session whose row is wanted.
            last: last session whose row is wanted.
            warm_up: bars before a wanted row that its computation may look at.

        Returns:
            ticker, session, revision, known_at, prices and volume, with ``era`` (0, 1, …) and
            ``in_era``: true where the row's own result is to be kept, false for history that only
            warms the computation up.
        """
        import pandas as pd

        wanted = list(tickers)
        span = {"first": first, "last": last, "warm_up": warm_up}
        with self.connection() as connection:
            restated = [row[0] for row in connection.execute(_RESTATED, [wanted, last]).fetchall()]
            quiet = sorted(set(wanted) - set(restated))
            frames = [
                _frame(connection.execute(query, parameters))
                for query, parameters in (
                    (_BARS_OF_ONE_ERA, span | {"tickers": quiet}),
                    (_BARS_BY_ERA, span | {"tickers": restated}),
                )
                if parameters["tickers"]
            ]
        if len(frames) < 2:
            return frames[0] if frames else self.bars([]).assign(era=0, in_era=True)
        both = pd.concat(frames, ignore_index=True)
        return both.sort_values(["ticker", "era", "session"], ignore_index=True)

    def salvage(self, tables: Iterable[str]) -> dict[str, pd.DataFrame]:
        """Rows of tables in a file of any version; without those that cannot be read."""
        found = {}
        with suppress(duckdb.Error, WarehouseError), self._open() as connection:
            connection.execute("SET TimeZone = 'UTC'")
            for table in tables:
                with suppress(duckdb.Error):
                    found[table] = _frame(connection.execute(f"SELECT * FROM {table} ORDER BY ALL"))
        return found

    def schema_version(self) -> int | None:
        """The layout that the file has; None where there is no file, or it is no warehouse.

        Raises:
            WarehouseError: the file cannot be opened.
        """
        if not self.path.exists():
            return None
        with closing(self._open()) as connection:
            return _stored_version(connection)

    def carry_over(self, older: Path, tables: Iterable[str]) -> dict[str, int]:
        """Copy tables of a file with an older layout into this one, in one transaction.

        Rows go over value for value by the names of their columns: a column that is new here is
        NULL, one that is gone here stays behind.

        Returns:
            The rows copied of each table; without the tables that the older file does not have.
        """
        copied = {}
        with self.connection() as connection:
            connection.execute(f"ATTACH '{_quoted(older)}' AS older (READ_ONLY)")
            columns = connection.execute(
                "SELECT t.table_name, string_agg(format('\"{}\"', t.column_name), ', ')"
                " FROM duckdb_columns() t JOIN duckdb_columns() o USING (table_name, column_name)"
                " WHERE t.database_name = current_database() AND o.database_name = 'older'"
                " GROUP BY t.table_name"
            )
            common = dict(columns.fetchall())
            connection.begin()
            for table in tables:
                if table in common:
                    ((copied[table],),) = connection.execute(
                        f"INSERT INTO {table} BY NAME SELECT {common[table]} FROM older.{table}"
                    ).fetchall()
            connection.commit()
        return copied

    def headlines(
        self,
        tickers: Iterable[str],
        first: datetime | None = None,
        last: datetime | None = None,
    ) -> pd.DataFrame:
        """Headlines usable in ``(first, last]``, each as it stood when it was first seen.

        An edited title is a new revision; the score of a past session keeps the words that were
        known then.
        """
        return self.read(
            "SELECT * FROM raw_news"
            " WHERE ticker IN (SELECT unnest(?::VARCHAR[])) AND revision = 0"
            "   AND usable_at > coalesce(?, '-infinity'::TIMESTAMPTZ)"
            "   AND usable_at <= coalesce(?, 'infinity'::TIMESTAMPTZ)"
            " ORDER BY ticker, usable_at, news_id",
            [list(tickers), first, last],
        )

    def tickers(self) -> list[str]:
        """Every ticker of which there is a final bar, in alphabetical order."""
        known = self.read("SELECT DISTINCT ticker FROM raw_ohlcv WHERE is_final ORDER BY ticker")
        return known["ticker"].tolist()

    def last_session(self, tickers: Iterable[str] | None = None) -> date | None:
        """The newest final bar's session, of these tickers or of all; None without bars."""
        where, parameters = _where({"ticker": None if tickers is None else list(tickers)})
        with self.connection() as connection:
            row = connection.execute(
                f"SELECT max(session) FROM raw_ohlcv WHERE is_final AND {where}", parameters
            ).fetchone()
        return row[0] if row else None

    def _open(self) -> duckdb.DuckDBPyConnection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        waiting = tenacity.Retrying(
            wait=tenacity.wait_random_exponential(multiplier=0.05, max=1.0),
            stop=tenacity.stop_after_delay(self.lock_timeout),
            retry=tenacity.retry_if_exception_type(_Busy),
            reraise=True,
        )
        try:
            return waiting(self._open_once)
        except _Busy as error:
            holder = re.search(r"PID (\d+)", str(error))
            who = f"process {holder[1]}" if holder else "another process"
            raise WarehouseLocked(
                f"warehouse {self.path} is in use by {who} and was not released within"
                f" {self.lock_timeout:.0f} s: wait for that run or stop it, then run again"
            ) from None

    def _open_once(self) -> duckdb.DuckDBPyConnection:
        try:
            return duckdb.connect(str(self.path))
        except duckdb.IOException as error:
            if "lock" in str(error).lower():
                raise _Busy(str(error)) from None
            raise WarehouseError(
                f"cannot open warehouse {self.path}: {_first_line(error)}; if it is not a"
                " warehouse, move it away and run again"
            ) from None
        except duckdb.Error as error:
            raise WarehouseError(
                f"warehouse {self.path} is damaged: {_first_line(error)}; move it away and run"
                " again, or run `rnn-pipeline rebuild`: the raw answers are kept beside it"
            ) from None

    def _ensure_schema(self, connection: duckdb.DuckDBPyConnection) -> None:
        if not connection.execute("SHOW TABLES").fetchall():
            _create_schema(connection)
            return
        found = _stored_version(connection)
        if found != SCHEMA_VERSION:
            raise WarehouseVersionError(self.path, found)


def _stored_version(connection: duckdb.DuckDBPyConnection) -> int | None:
    if ("meta",) not in connection.execute("SHOW TABLES").fetchall():
        return None
    row = connection.execute("SELECT schema_version FROM meta").fetchone()
    return row[0] if row else None


def _create_schema(connection: duckdb.DuckDBPyConnection) -> None:
    connection.begin()
    for table, columns in TABLES.items():
        connection.execute(f"CREATE TABLE {table} ({columns})")
    for view, query in VIEWS.items():
        connection.execute(f"CREATE VIEW {view} AS {query}")
    connection.execute("INSERT INTO meta VALUES (?, ?)", [SCHEMA_VERSION, datetime.now(UTC)])
    connection.commit()


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


# Tickers of which a row was ever revised or came after its successor; of all others there is one
# era, and their bars need no versions told apart.
_RESTATED = """
SELECT DISTINCT ticker FROM (
    SELECT ticker, revision, known_at, lag(known_at) OVER (
        PARTITION BY ticker ORDER BY session, revision
    ) AS before
    FROM raw_ohlcv WHERE ticker IN (SELECT unnest(?::VARCHAR[])) AND is_final AND session <= ?
)
WHERE revision > 0 OR known_at < before
"""

_COMPUTED_FROM = "ticker, session, revision, known_at, open, high, low, close, adj_close, volume"

_BARS_OF_ONE_ERA = f"""
WITH spans AS (
    SELECT ticker, max(session) AS ends, CASE WHEN $warm_up > 0 THEN
        list_min(max(session, greatest($warm_up, 1)) FILTER (session < $first)) END AS begins
    FROM raw_ohlcv
    WHERE ticker IN (SELECT unnest($tickers::VARCHAR[])) AND is_final AND session <= $last
    GROUP BY ticker
)
SELECT {_COMPUTED_FROM}, CAST(0 AS BIGINT) AS era, session >= $first AS in_era
FROM raw_ohlcv JOIN spans USING (ticker)
WHERE ends >= $first AND session BETWEEN coalesce(begins, $first) AND $last AND is_final
ORDER BY ticker, session
"""

_BARS_BY_ERA = f"""
WITH known AS (
    SELECT {_COMPUTED_FROM} FROM raw_ohlcv
    WHERE ticker IN (SELECT unnest($tickers::VARCHAR[])) AND is_final AND session <= $last
),
rows_of AS (
    SELECT ticker, session, min(known_at) AS vintage,
           row_number() OVER (PARTITION BY ticker ORDER BY session) AS position
    FROM known GROUP BY ticker, session
),
-- A row is disruptive when it changes what an already computed later row was computed from.
overtaken AS (
    SELECT ticker, session,
           min(vintage) OVER (
               PARTITION BY ticker ORDER BY session
               ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING
           ) AS earliest_later_vintage
    FROM rows_of
),
moments AS (
    SELECT DISTINCT known.ticker, known.known_at AS moment
    FROM known JOIN overtaken USING (ticker, session)
    WHERE revision > 0 OR known_at > earliest_later_vintage
),
placed AS (
    SELECT rows_of.ticker, session, position, count(moment) AS era
    FROM rows_of LEFT JOIN moments
      ON rows_of.ticker = moments.ticker AND moments.moment <= rows_of.vintage
    GROUP BY ALL
),
eras AS (
    SELECT ticker, era,
           min(position) FILTER (session >= $first) AS first_position,
           max(position) FILTER (session >= $first) AS last_position
    FROM placed GROUP BY ticker, era
    HAVING first_position IS NOT NULL
),
bounded AS (
    SELECT eras.*, min(moment) AS ends
    FROM eras LEFT JOIN (
        SELECT ticker, moment, row_number() OVER (PARTITION BY ticker ORDER BY moment) AS number
        FROM moments
    ) AS numbered ON eras.ticker = numbered.ticker AND numbered.number = eras.era + 1
    GROUP BY ALL
),
late AS (
    SELECT ticker, count(*) AS rows FROM overtaken JOIN rows_of USING (ticker, session)
    WHERE vintage > earliest_later_vintage GROUP BY ticker
),
held AS (
    SELECT known.*, bounded.era, placed.position >= bounded.first_position AS wanted,
           wanted AND placed.era = bounded.era AS in_era
    FROM bounded
    LEFT JOIN late ON late.ticker = bounded.ticker
    -- Late rows have a position but are missing in earlier eras: look further back for each.
    JOIN placed ON placed.ticker = bounded.ticker
        AND placed.position <= bounded.last_position
        AND placed.position >= bounded.first_position - $warm_up - coalesce(late.rows, 0)
    JOIN known ON known.ticker = placed.ticker AND known.session = placed.session
        AND known.known_at < coalesce(bounded.ends, 'infinity'::TIMESTAMPTZ)
    QUALIFY revision = max(revision) OVER (PARTITION BY known.ticker, bounded.era, known.session)
)
SELECT * EXCLUDE (wanted) FROM held
QUALIFY wanted
    OR row_number() OVER (PARTITION BY ticker, era, wanted ORDER BY session DESC) <= $warm_up
ORDER BY ticker, era, session
"""
