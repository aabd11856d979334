"""A quarter of daily runs, one evening after the other, and one batch run over the same knowledge.

    python -m benchmarks.quarter [--data ../shared/data/stocknet] [--sessions 64] [--write]

Every evening a vendor drops the session's bars and headlines into the drop folder and the schedules
``after_the_close`` and ``as_folds_begin`` are evaluated as the daemon does; what they ask for runs
through Dagster. The clock is moved, so that everything carries the moment at which it became known.
Nobody touches anything, whatever happens:

- a day of garbage: three tickers' rows break rules, and come again, whole, with the next file;
- a correction of a bar of six weeks ago;
- a split: until its day all prices of a ticker come seven times (in the sample twice) as high, and
  on that day they are restated from the beginning;
- an outage of three days, in which files come and nothing runs, and one run that catches up;
- ``kill -9`` of a run in the middle of training, of one in the middle of signals, and of one that
  is catching up.

At the end the raw tables are made anew from the journal, in another folder: the same revisions with
the same ``known_at`` are what "the same knowledge" means. On these, one batch run (the functions
that the assets call, without Dagster and without anything that the evenings left behind) makes
features, networks, forecasts, evidence, signals and decisions, and every value is compared with
what the evenings stored, bit for bit.

Bars are real: 6 tickers, or 3 of the embedded sample where the data is absent. Real headlines are
dropped as they are, and give no evidence; an account that never trades would prove little, so those
of two tickers are made up and foretell the next session more often than not.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from benchmarks.made_up import SOON_TRAINED, environment
from rnn_pipeline.market.calendar import SessionCalendar

if TYPE_CHECKING:
    import dagster as dg

    from rnn_pipeline.warehouse import Warehouse

RESULTS = Path(__file__).parent / "results" / "quarter.json"
SETTINGS = """
source = "files"
drop_dir = "{drop}"
labels = "{labels}"
start = {start}
tickers = {tickers}

[folds]
train_size = 100
val_size = 20
test_size = 21

[model]
lookback = 10
seeds = [0]

[model.networks.lstm]
cell = "lstm"
hidden_sizes = [8]

[model.networks.gru]
cell = "gru"
hidden_sizes = [8]
{soon_trained}"""
CALENDAR = SessionCalendar("XNYS")
EVENING, MORNING, ARRIVAL = (timedelta(hours=hours) for hours in (18, 7, 17.5))
HINTS_HOLD = 0.75
"""Share of the made-up headlines that foretell the next session rightly."""
WORDS = {
    True: "{} raises its forecast after strong profit",
    False: "{} cuts its forecast after loss",
}
MADE = (
    *("price_features", "targets", "news_sentiment", "model_features", "forecasts"),
    *("evidence", "price_signals", "sentiment_signals", "signal_contributions"),
    *("trading_signals", "trading_decisions", "trading_account"),
)


@dataclass(frozen=True)
class Incidents:
    """What happens on which of the quarter's sessions, counted from 0; -1: it does not.

    Attributes:
        garbage: rows of three tickers break rules.
        correction: a bar of 30 sessions ago is corrected.
        split: prices are restated.
        outage: sessions on which nothing runs.
        kills: session -> the event of Dagster's log after which the run is killed.
        retraining: the run is killed in the middle of the first training from this session on.
    """

    garbage: int
    correction: int
    split: int
    outage: tuple[int, ...]
    kills: Mapping[int, str]
    retraining: int


QUARTER = Incidents(
    garbage=19,
    correction=12,
    split=26,
    outage=(34, 35, 36, 50),
    kills={45: "trading_signals - STEP_SUCCESS", 51: "raw_ohlcv - STEP_SUCCESS"},
    retraining=37,
)
FORTNIGHT = Incidents(
    garbage=2,
    correction=1,
    split=4,
    outage=(5, 6),
    kills={7: "raw_ohlcv - STEP_SUCCESS", 9: "trading_signals - STEP_SUCCESS"},
    retraining=0,
)
"""The same, with a catch-up run that is killed."""
FEW_DAYS = Incidents(
    garbage=-1,
    correction=1,
    split=-1,
    outage=(),
    kills={2: "price_features - STEP_SUCCESS"},
    retraining=99,
)
IN_TRAINING = "lstm_forecaster - STEP_SUCCESS"


def incidents_of(sessions: int) -> Incidents:
    """Those that fit into so many sessions."""
    return QUARTER if sessions >= 60 else FORTNIGHT if sessions >= 11 else FEW_DAYS


@dataclass(frozen=True)
class World:
    """Bars and headlines as they are known after everything, and the quarter's place among them.

    Attributes:
        bars: ticker, session, open, high, low, close, adj_close, volume.
        headlines: ticker, published_at, title.
        first: the quarter's first session.
        split: the ticker, and shares for one.
        incidents: of the quarter.
    """

    bars: pd.DataFrame
    headlines: pd.DataFrame
    first: pd.Timestamp
    split: tuple[str, float]
    incidents: Incidents

    @cached_property
    def axis(self) -> pd.DatetimeIndex:
        """Every session."""
        return pd.DatetimeIndex(self.bars["session"].unique()).sort_values()

    def quarter(self, sessions: int) -> pd.DatetimeIndex:
        """The quarter's sessions."""
        start = self.axis.get_loc(self.first)
        return self.axis[start : start + sessions]

    def history(self) -> pd.DataFrame:
        """All bars before the quarter, as they were traded."""
        return self._as_traded(self.bars[self.bars["session"] < self.first], -1)

    def dropped(self, number: int) -> pd.DataFrame:
        """The bars of the vendor's file of one of the quarter's sessions."""
        session = self.axis[self.axis.get_loc(self.first) + number]
        told, happens = self.bars, self.incidents
        rows = self._as_traded(told[told["session"] == session], number)
        if number == happens.split:
            ticker, ratio = self.split
            restated = told[(told["ticker"] == ticker) & (told["session"] < session)]
            rows.loc[rows["ticker"] == ticker, "split"] = ratio
            rows = pd.concat([restated.assign(split=0.0), rows])
        if number == happens.correction:
            old = told[told["session"] == self.axis[self.axis.get_loc(session) - 30]]
            old = self._as_traded(old.iloc[[-1]], number)
            up = {name: old[name] * 1.02 for name in ("high", "close", "adj_close")}
            rows = pd.concat([old.assign(**up), rows])
        if number == happens.garbage:
            place = [rows.columns.get_loc(name) for name in ("close", "high", "volume")]
            for row, (column, value) in enumerate(zip(place, (-1.0, 0.01, None), strict=True)):
                rows.iloc[row, column] = value
        if number - 1 == happens.garbage >= 0:
            again = self._as_traded(
                told[told["session"] == self.axis[self.axis.get_loc(session) - 1]], number
            )
            rows = pd.concat([again, rows])
        return rows

    def _as_traded(self, rows: pd.DataFrame, number: int) -> pd.DataFrame:
        """Rows with their prices as long as the split has not come yet."""
        rows = rows.assign(split=0.0)
        if number >= self.incidents.split:
            return rows
        ticker, ratio = self.split
        mine = rows["ticker"] == ticker
        for name in ("open", "high", "low", "close", "adj_close"):
            rows[name] = rows[name].where(~mine, rows[name] * ratio)
        return rows.assign(volume=rows["volume"].where(~mine, rows["volume"] / ratio))

    def told(self, after: pd.Timestamp, until: pd.Timestamp) -> pd.DataFrame:
        """Headlines published in ``(after, until]``."""
        moments = self.headlines["published_at"]
        return self.headlines[(moments > after) & (moments <= until)]


def at(session: pd.Timestamp, hour: timedelta) -> datetime:
    """A moment of a session's day, by the exchange's clock."""
    return (session + hour).tz_localize(CALENDAR.timezone).to_pydatetime()


def made_up(bars: pd.DataFrame, tickers: Sequence[str]) -> pd.DataFrame:
    """Headlines of 11 o'clock that foretell the next session's close more often than not."""
    rng = np.random.default_rng(0)
    frames = []
    for ticker in tickers:
        own = bars[bars["ticker"] == ticker].sort_values("session")
        rises = (own["adj_close"].shift(-1) > own["adj_close"]).to_numpy()
        said = np.where(rng.random(len(own)) < HINTS_HOLD, rises, ~rises)
        frames.append(
            pd.DataFrame(
                {
                    "ticker": ticker,
                    "published_at": own["session"].dt.tz_localize("UTC") + timedelta(hours=16),
                    "title": [WORDS[bool(up)].format(ticker) for up in said],
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def labelled() -> pd.DataFrame:
    """Some of the embedded labelled headlines, and those that are made up here."""
    from rnn_pipeline.market.sample import SampleSource

    known = SampleSource().labelled_headlines().groupby(["split", "label"]).head(60)
    ours = pd.DataFrame(
        [
            {"headline": words.format(name), "label": label, "split": "train"}
            for up, label in ((True, "positive"), (False, "negative"))
            for words, name in ((WORDS[up], f"Firm {n}") for n in range(20))
        ]
    )
    return pd.concat([known, ours], ignore_index=True)


def real_world(data: Path, incidents: Incidents) -> World:
    """Six tickers in the summer of 2015, with two years before it."""
    tickers, foretold = ["AAPL", "AMZN", "GOOG", "MSFT", "T", "XOM"], ["T", "XOM"]
    bars = pd.read_parquet(data / "ohlcv.parquet").rename(columns={"date": "session"})
    bars = bars[bars["ticker"].isin(tickers) & bars["session"].between("2013-06-03", "2015-12-31")]
    news = pd.read_csv(data / "headlines.csv.gz").rename(columns={"headline": "title"})
    news["published_at"] = pd.to_datetime(news["published_at"], utc=True)
    news = news[news["ticker"].isin(set(tickers) - set(foretold))]
    headlines = pd.concat([news, made_up(bars, foretold)], ignore_index=True)
    return World(bars, headlines, pd.Timestamp("2015-06-01"), ("AAPL", 7.0), incidents)


def embedded_world(incidents: Incidents) -> World:
    """Three tickers of the sample's last years; the made-up headlines alone."""
    from rnn_pipeline.market.sample import SampleSource

    source, days = SampleSource(), (date(2010, 9, 1), date(2013, 3, 1))
    tickers = ["AAPL", "IBM", "MSFT"]
    frames = [source.parse_bars(source.fetch_bars(t, *days), t) for t in tickers]
    bars = pd.concat(frames, ignore_index=True).drop(columns=["dividend", "split"])
    headlines = made_up(bars, tickers[1:])
    return World(bars, headlines, pd.Timestamp("2012-09-04"), ("MSFT", 2.0), incidents)


def drop(frame: pd.DataFrame, folder: Path, name: str, moment: datetime) -> None:
    """Put a file into the drop folder, last changed at a moment."""
    if len(frame):
        path = folder / f"{name}.parquet"
        frame.to_parquet(path, index=False)
        os.utime(path, (moment.timestamp(),) * 2)


def deliver(world: World, folder: Path, sessions: pd.DatetimeIndex, number: int) -> None:
    """What the vendor drops on the afternoon of a session."""
    session = sessions[number]
    before = world.axis[world.axis.get_loc(session) - 1]
    moment = at(session, ARRIVAL)
    drop(world.dropped(number), folder, f"bars {session:%Y-%m-%d}", moment)
    news = world.told(pd.Timestamp(at(before, ARRIVAL)), pd.Timestamp(moment))
    drop(news, folder, f"headlines {session:%Y-%m-%d}", moment)


def requested(
    instance: dg.DagsterInstance, moment: datetime
) -> Iterator[tuple[str, dg.RunRequest]]:
    """What the evening's schedules ask for, with the job that each starts."""
    import dagster as dg

    from rnn_pipeline.definitions import defs
    from rnn_pipeline.defs import automation

    for schedule in (automation.after_the_close, automation.as_folds_begin):
        with dg.build_schedule_context(
            instance=instance, scheduled_execution_time=moment, resources=defs.resources
        ) as context:
            for request in schedule.evaluate_tick(context).run_requests or ():
                yield schedule.job_name, request


def run_as_launched(instance: dg.DagsterInstance, job: str, request: dg.RunRequest) -> None:
    """Run what a schedule asked for as the process does that the daemon launches for it."""
    import dagster as dg
    from dagster._core.definitions.reconstruct import ReconstructableRepository

    code = ReconstructableRepository.for_module("rnn_pipeline.definitions", "defs")
    with dg.execute_job(
        code.get_reconstructable_job(job),
        instance,
        run_config=request.run_config,
        tags=request.tags,
        raise_on_error=True,
    ) as result:
        assert result.success, f"{job} failed"


def page() -> list[dict[str, str]]:
    """What ``rnn-pipeline doctor`` says now."""
    from click.testing import CliRunner

    from rnn_pipeline import cli

    shown = CliRunner().invoke(cli.main, ["doctor", "--json"], catch_exceptions=False)
    return json.loads(shown.stdout)


def stored(store: Warehouse) -> int:
    """Rows of all tables."""
    names = store.read("SELECT table_name AS name FROM duckdb_tables() ORDER BY name")["name"]
    counts = " UNION ALL ".join(f"SELECT count(*) AS n FROM {name}" for name in names)
    return int(store.read(counts)["n"].sum())


def megabytes(folder: Path) -> dict[str, float]:
    """Of what lies in a folder, by its first level."""
    return {
        path.name: sum(p.stat().st_size for p in [path, *path.rglob("*")] if p.is_file()) / 1e6
        for path in sorted(folder.iterdir())
    }


def tell(**found: Any) -> None:
    """A line for the process that started this one."""
    print(json.dumps(found, default=str), flush=True)


def live(world: World, sessions: pd.DatetimeIndex, begin: int) -> None:
    """The evenings from one on, with the settings in force; -1: the history before them."""
    import time_machine

    from rnn_pipeline import cli
    from rnn_pipeline.defs.automation import stages
    from rnn_pipeline.defs.partitions import SETTINGS
    from rnn_pipeline.warehouse import Warehouse

    assert SETTINGS.drop_dir is not None
    store = Warehouse(SETTINGS.warehouse_path)
    incidents = world.incidents
    looked_at = {0, incidents.correction + 1, incidents.garbage + 1, incidents.split + 1}
    looked_at |= {max(incidents.outage, default=-1), *(number + 1 for number in incidents.kills)}
    if begin < 0:
        before = world.axis[world.axis.get_loc(sessions[0]) - 1]
        with time_machine.travel(at(before, EVENING)), cli.prepare(SETTINGS) as instance:
            moment = at(before, ARRIVAL)
            drop(world.history(), SETTINGS.drop_dir, "bars", moment)
            news = world.told(pd.Timestamp(0, tz="UTC"), pd.Timestamp(moment))
            drop(news, SETTINGS.drop_dir, "headlines", moment)
            for name, tags in stages(instance):
                cli.run_job(instance, name, tags)
        begin = 0
    for number in range(begin, len(sessions)):
        session = sessions[number]
        if number in looked_at:
            with time_machine.travel(at(session, MORNING)):
                tell(page=f"{session:%Y-%m-%d}, morning", findings=page())
        deliver(world, SETTINGS.drop_dir, sessions, number)
        if number in incidents.outage:
            continue
        with time_machine.travel(at(session, EVENING)), cli.prepare(SETTINGS) as instance:
            tell(evening=number)
            wall, processor = time.perf_counter(), time.process_time()
            jobs = []
            for job, request in requested(instance, at(session, EVENING)):
                run_as_launched(instance, job, request)
                jobs.append(job)
            wall, processor = time.perf_counter() - wall, time.process_time() - processor
        tell(
            session=f"{session:%Y-%m-%d}",
            jobs=jobs,
            seconds=round(wall, 2),
            processor_seconds=round(processor, 2),
            rows=stored(store),
            megabytes={k: round(v, 2) for k, v in megabytes(SETTINGS.home).items()},
        )
    with time_machine.travel(at(sessions[-1], EVENING) + timedelta(hours=6)):
        tell(page="after the last evening", findings=page())


def compared(one: pd.DataFrame, two: pd.DataFrame) -> dict[str, Any]:
    """Rows and values of two tables, and how many values are not the same bits."""
    columns = [name for name in one.columns if name in two.columns]
    keys = [
        name
        for name in ("ticker", "session", "target_session", "fold", "model", "seed", "source")
        if name in columns
    ]
    both = one[columns].merge(
        two[columns], on=keys, how="outer", suffixes=("", "_batch"), indicator=True
    )
    alone = both["_merge"] != "both"
    values = [name for name in columns if name not in keys]
    unequal = {}
    for name in values:
        left, right = both[name], both[f"{name}_batch"]
        differs = ~((left == right) | (left.isna() & right.isna())) & ~alone
        if differs.any():
            first = both[differs].iloc[0]
            told = ", ".join(f"{key} {first[key]}" for key in keys)
            pair = f"{first[name]!r} and {first[f'{name}_batch']!r}"
            unequal[name] = f"{int(differs.sum())}, first {told}: {pair}"
    found = {"rows": len(one), "values": len(one) * len(values), "unequal": unequal}
    if alone.any():
        first = both[alone].iloc[0]
        found["alone"] = f"{int(alone.sum())}, first {dict(first[[*keys, '_merge']])}"
    return found


def batch(home: Path) -> None:
    """Make everything at once from the journal, in a new folder; compare it with what is stored."""
    from rnn_pipeline import chain
    from rnn_pipeline.defs.partitions import SETTINGS
    from rnn_pipeline.evidence.lookahead import Knowledge
    from rnn_pipeline.market.files import FileSource
    from rnn_pipeline.market.rebuild import RAW_TABLES, rebuild
    from rnn_pipeline.warehouse import PayloadStore, Warehouse

    assert SETTINGS.drop_dir is not None
    lived = Warehouse(SETTINGS.warehouse_path)
    anew = Warehouse(home / "warehouse.duckdb")
    played = rebuild(anew, PayloadStore(SETTINGS.payload_dir), [FileSource(SETTINGS.drop_dir)])
    different = [name for name in RAW_TABLES if not lived.rows(name).equals(anew.rows(name))]
    knowledge = Knowledge(
        anew.rows("raw_ohlcv"), anew.rows("raw_news"), lived.rows("labelled_headlines")
    )
    started = time.perf_counter()
    made = chain.run(knowledge, SETTINGS)
    seconds = time.perf_counter() - started
    bars = knowledge.bars
    tell(
        batches_played=played,
        raw_tables_that_differ=different,
        revisions=bars.loc[bars["revision"] > 0, "reason"].value_counts().to_dict(),
        seconds_of_the_batch=round(seconds, 1),
        compared={name: compared(lived.rows(name), made[name]) for name in MADE},
        paper=ledger(lived),
    )


def ledger(store: Warehouse) -> dict[str, Any]:
    """Whether the paper account adds up, worked out here again from orders, fills and bars."""
    account, fills = store.rows("paper_account"), store.rows("paper_fills")
    orders = store.rows("paper_orders")
    decisions = store.rows("trading_decisions", "ticker, session, position")
    told = orders.merge(decisions, on=["ticker", "session"], suffixes=("", "_now"), how="left")
    parts = account[["promise", "revised", "missed", "drift", "slippage", "cost"]].sum(axis=1)
    paid = fills.groupby("session")[["cost", "slippage"]].sum().sum(axis=1)
    gross = account.set_index("session")["gross_return"]
    net = gross - paid.reindex(gross.index, fill_value=0.0)
    return {
        "orders": len(orders),
        "orders_unlike_decisions": int((told["position"] != told["position_now"]).sum()),
        "fills": int((fills["missed"] == "").sum()),
        "missed": fills.loc[fills["missed"] != "", "missed"].value_counts().to_dict(),
        "equity": float(account["equity"].iloc[-1]),
        "promise": float(account["promise"].iloc[-1]),
        "largest_gap_of_explanations": float((account["equity"] - parts).abs().max()),
        "largest_gap_of_equity": float(
            ((1 + net).cumprod() - account.set_index("session")["equity"]).abs().max()
        ),
    }


class Quarter:
    """Processes of one data folder."""

    def __init__(self, folder: Path, world: World, options: argparse.Namespace) -> None:
        self.folder, self.world, self.options = folder, world, options
        drop_dir = folder / "drop"
        drop_dir.mkdir()
        settings = folder / "settings.toml"
        tickers = json.dumps(sorted(world.bars["ticker"].unique()))
        start = f"{world.axis[0]:%Y-%m-%d}"
        labels = folder / "labels.csv"
        labelled().to_csv(labels, index=False)
        settings.write_text(
            SETTINGS.format(
                drop=drop_dir,
                labels=labels,
                start=start,
                tickers=tickers,
                soon_trained=SOON_TRAINED,
            )
        )
        self.environment = environment(settings, folder / "data")

    def started(self, *task: str) -> subprocess.Popen[str]:
        """A process of this module."""
        shared = ["--data", str(self.options.data), "--sessions", str(self.options.sessions)]
        return subprocess.Popen(
            [sys.executable, "-u", "-W", "ignore", "-m", "benchmarks.quarter", *shared, *task],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def evenings(self) -> Iterator[dict[str, Any]]:
        """All of them; a process that is killed is followed by one that begins with the next."""
        begin, incidents = -1, self.world.incidents
        kills, training = dict(incidents.kills), True
        while begin < self.options.sessions:
            number = -2
            for line, told in self._lines(self.started("--live", str(begin))):
                if told is not None:
                    number = told.get("evening", number)
                    if "evening" not in told:
                        yield told
                    continue
                due = training and number >= incidents.retraining
                after = kills.get(number, IN_TRAINING if due else None)
                if after is not None and after in line:
                    training = training and after != IN_TRAINING
                    yield {"killed": number, "after": after}
                    break
            begin = number + 1

    def batch(self) -> dict[str, Any]:
        """What a batch run makes, compared."""
        lines = self._lines(self.started("--batch", str(self.folder / "anew")))
        return [told for _, told in lines if told is not None][-1]

    def _lines(self, process: subprocess.Popen[str]) -> Iterator[tuple[str, dict[str, Any] | None]]:
        """Lines of a process, read where they are for this one. It is killed when no more is read.

        Raises:
            RuntimeError: it failed; with its last lines.
        """
        assert process.stdout is not None
        last: list[str] = []
        try:
            for line in process.stdout:
                last = [*last[-60:], line]
                yield line, json.loads(line) if line.startswith('{"') else None
            if process.wait():
                raise RuntimeError("".join(last))
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


def slope(seconds: Sequence[float]) -> float:
    """Seconds that a day takes longer than the day before it (Theil-Sen: a median of slopes)."""
    from scipy.stats import theilslopes

    return float(theilslopes(seconds).slope)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quarter")
    default = Path(__file__).parents[2] / "shared" / "data" / "stocknet"
    parser.add_argument("--data", type=Path, default=default, help="the sample if it is absent")
    parser.add_argument(
        "--sessions", type=int, default=64, help="11 to 59: all in two weeks; fewer: part"
    )
    parser.add_argument("--write", action="store_true", help=f"replace {RESULTS.name}")
    parser.add_argument("--live", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    incidents = incidents_of(options.sessions)
    real = options.data.is_dir()
    world = real_world(options.data, incidents) if real else embedded_world(incidents)
    if options.live is not None:
        live(world, world.quarter(options.sessions), options.live)
        return
    if options.batch:
        batch(options.batch)
        return
    begun = time.perf_counter()
    days, pages, killed = [], {}, []
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        quarter = Quarter(Path(folder), world, options)
        for told in quarter.evenings():
            if "page" in told:
                pages[told["page"]] = told["findings"]
            elif "killed" in told:
                killed.append(told)
                print(f"killed on evening {told['killed']}, after {told['after']}", flush=True)
            else:
                days.append(told)
                print(
                    f"{told['session']} {','.join(told['jobs']):6} {told['seconds']:6.1f} s"
                    f" {told['rows']:9,} rows {sum(told['megabytes'].values()):7.1f} MB",
                    flush=True,
                )
        found = quarter.batch()
    plain = [day["processor_seconds"] for day in days if day["jobs"] == ["daily"]]
    found = {
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "machine": f"{os.cpu_count()} cores ({platform.machine()}), load {os.getloadavg()[0]:.1f}",
        "data": "stocknet" if real else "embedded sample",
        "sessions": options.sessions,
        "minutes": round((time.perf_counter() - begun) / 60, 1),
        "incidents": asdict(incidents),
        "killed": killed,
        "daily_runs": {
            "processor_seconds_median": float(np.median(plain)),
            "processor_seconds_slope": slope(plain),
        },
        "days": days,
        **found,
        "pages": pages,
    }
    print(json.dumps({k: v for k, v in found.items() if k not in ("days", "pages")}, indent=1))
    for name, findings in pages.items():
        print(name)
        for one in findings:
            if one["state"] != "healthy":
                print(f"  {one['state']:7} {one['area']:10} {one['says']} -> {one['command']}")
    if options.write:
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    unlike = [name for name, one in found["compared"].items() if one["unequal"] or "alone" in one]
    if unlike or found["raw_tables_that_differ"]:
        sys.exit(f"not as the batch run: {unlike or found['raw_tables_that_differ']}")


if __name__ == "__main__":
    main()
