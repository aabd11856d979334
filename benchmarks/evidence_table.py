"""What the pipeline makes of real bars, with headlines and without: the evidence table.

    python -m benchmarks.evidence_table [--data ../shared/data/stocknet] [--tickers 24] [--write]

The whole graph through Dagster with the default networks, once with the folder's headlines and
once with its bars alone, each in a process and a data folder of its own; baselines beside. Not run
where the data is absent: it is no part of the project.
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
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from rnn_pipeline.reporting.report import Report

RESULTS = Path(__file__).parent / "results" / "evidence_stocknet.json"
BARS, HEADLINES = "ohlcv.parquet", "headlines.csv.gz"
FOLDERS = {"with headlines": (BARS, HEADLINES), "without headlines": (BARS,)}
# 1,257 sessions: two years to learn from leave the time in which there are headlines to test.
SETTINGS = """
source = "files"
drop_dir = "{data}"
start = 2012-09-04
tickers = [{tickers}]

[model]
seeds = [{seeds}]

[folds]
train_size = 500
val_size = 60
test_size = 60
"""
POOLED = ("n", "ic", "ic_t", "hit_rate", "hit_low", "hit_high", "r2_vs_zero")
LUCK = ("ic_low", "ic_high", "deflated_sharpe_ratio", "superior_p", "in_confidence_set")
ACCOUNT = ("annual_return", "annual_volatility", "sharpe_ratio", "max_drawdown", "exposure")


def run_here(page: Path | None) -> dict[str, Any]:
    """Run every stage with the settings in force, and lay the report's evidence out."""
    from rnn_pipeline import cli
    from rnn_pipeline.defs.automation import stages
    from rnn_pipeline.defs.reporting import REPORT, read_report
    from rnn_pipeline.settings import load_settings
    from rnn_pipeline.warehouse import Warehouse

    settings = load_settings()
    started = time.perf_counter()
    with cli.prepare(settings) as instance:
        for name, tags in stages(instance):
            cli.run_job(instance, name, tags)
    seconds = time.perf_counter() - started
    store = Warehouse(settings.warehouse_path)
    if page is not None:
        page.write_bytes(REPORT.read_bytes())
    return {
        "seconds": round(seconds),
        "networks_trained": int(store.rows("checkpoints")["networks"].sum()),
        "folds": int(store.rows("forecasts", "fold")["fold"].nunique()),
        "headlines": len(store.rows("raw_news", "news_id")),
        **figures(read_report(store)),
    }


def figures(report: Report) -> dict[str, Any]:
    """The evidence table, pooled over tickers, and the accounts.

    Returns:
        models: one line per network, baseline and the sentiment level, with the grades that its
        tickers got; overfitting; accounts: strategy and benchmarks, filled at the open.
    """
    from rnn_pipeline.reporting.tables import without_level_errors

    grades = report.evidence.groupby("model")["grade"].value_counts().unstack(fill_value=0)
    table = without_level_errors(report.metrics[["model", *POOLED]])
    for more in (
        report.pooled_evidence.rename(columns={"grade": "grade_of_all"}),
        report.evidence.groupby("model", as_index=False).agg(
            trials=("trials", "max"), smallest_p=("p_value", "min")
        ),
        report.luck[["model", *LUCK]],
        report.alone[["model", "sharpe_ratio", "break_even_bps"]],
    ):
        table = table.merge(more, on="model", how="left")
    lines = json.loads(table.to_json(orient="records", double_precision=5))
    for line in lines:
        if line["model"] in grades.index:
            line["tickers_graded"] = grades.loc[line["model"]].to_dict()
    accounts = report.performance[report.performance["fill"] == "open"]
    return {
        "test": [f"{moment:%Y-%m-%d}" for moment in _tested(report)],
        "models": lines,
        "overfitting": round(report.overfitting, 4),
        "accounts": json.loads(
            accounts[["name", *ACCOUNT]].to_json(orient="records", double_precision=5)
        ),
    }


def _tested(report: Report) -> tuple[pd.Timestamp, pd.Timestamp]:
    spans = report.fold_table[report.fold_table["role"] == "test"]
    return spans["first_session"].min(), spans["last_session"].max()


def run_variant(
    files: tuple[str, ...], data: Path, tickers: list[str], seeds: int, page: Path | None
) -> dict[str, Any]:
    """Run the graph in a process of its own on an empty data folder and these files alone."""
    with tempfile.TemporaryDirectory() as folder:
        drop = Path(folder) / "drop"
        drop.mkdir()
        for name in files:
            (drop / name).write_bytes((data / name).read_bytes())
            # A file that has just been written may still be on its way into the folder.
            os.utime(drop / name, (0, 0))
        settings = Path(folder) / "settings.toml"
        quoted = ", ".join(f'"{ticker}"' for ticker in tickers)
        asked = SETTINGS.format(
            data=drop, tickers=quoted, seeds=", ".join(str(seed) for seed in range(seeds))
        )
        settings.write_text(asked)
        here = ["--page", str(page.resolve())] if page else []
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.evidence_table", "--here", *here],
            env=os.environ
            | {
                "RNN_PIPELINE_SETTINGS_FILE": str(settings),
                "RNN_PIPELINE_DATA_DIR": folder,
                "DAGSTER_HOME": "",
            },
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    return json.loads(done.stdout.splitlines()[-1])


def markdown(found: dict[str, Any]) -> str:
    """The evidence tables as Markdown."""
    from rnn_pipeline.reporting.tables import table_markdown

    parts = []
    for variant, run in found["variants"].items():
        models = pd.DataFrame(run["models"]).assign(
            graded=[
                sum(number for grade, number in graded.items() if grade != "none")
                if isinstance(graded, dict)
                else None
                for graded in (line.get("tickers_graded") for line in run["models"])
            ]
        )
        columns = [
            *("model", "graded", "grade_of_all", "p_value", "trials", "ic", "ic_low", "ic_high"),
            *("ic_t", "hit_rate", "hit_low", "hit_high", "r2_vs_zero", "superior_p"),
            *("sharpe_ratio", "deflated_sharpe_ratio", "break_even_bps"),
        ]
        parts += [
            f"## {variant}",
            table_markdown(models, columns),
            table_markdown(pd.DataFrame(run["accounts"]), ["name", *ACCOUNT]),
        ]
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evidence_table")
    default = Path(__file__).parents[2] / "shared" / "data" / "stocknet"
    parser.add_argument("--data", type=Path, default=default)
    parser.add_argument("--tickers", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--variants", nargs="+", choices=list(FOLDERS), default=list(FOLDERS))
    parser.add_argument("--pages", type=Path, help="a folder to keep the reports' pages in")
    parser.add_argument("--write", action="store_true", help=f"replace {RESULTS.name}")
    parser.add_argument("--page", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.here:
        print(json.dumps(run_here(asked.page)))
        return
    if not (asked.data / BARS).is_file():
        sys.exit(f"{asked.data / BARS} is not there: nothing is measured")
    names = pd.read_parquet(asked.data / BARS, columns=["ticker"])["ticker"]
    tickers = sorted(names.unique())[: asked.tickers]
    found: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "machine": f"{os.cpu_count()} cores ({platform.machine()}), load {os.getloadavg()[0]:.1f}",
        "tickers": len(tickers),
        "seeds": asked.seeds,
        "variants": {},
    }
    for variant in asked.variants:
        page = asked.pages and asked.pages / f"{variant.replace(' ', '_')}.html"
        found["variants"][variant] = run_variant(
            FOLDERS[variant], asked.data, tickers, asked.seeds, page
        )
        if asked.write:
            RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    print(markdown(found))


if __name__ == "__main__":
    main()
