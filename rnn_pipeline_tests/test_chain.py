"""The chain is the asset graph: same functions, same bits; and neither looks ahead."""

from __future__ import annotations

import dagster as dg
import pandas as pd
import pytest

from rnn_pipeline import chain
from rnn_pipeline.audit import audit, summary
from rnn_pipeline.defs.automation import stages
from rnn_pipeline.defs.partitions import SETTINGS
from rnn_pipeline.definitions import defs
from rnn_pipeline.evidence.lookahead import VARIANTS, Knowledge, first_difference, look_ahead
from rnn_pipeline.warehouse import Warehouse
from rnn_pipeline_tests.leaks import town

TABLES = (
    *("price_features", "targets", "news_sentiment", "model_features", "forecasts", "evidence"),
    *("price_signals", "sentiment_signals", "trading_signals", "trading_decisions"),
)
LINEAGE = {"run_id", "model_hash"}


@pytest.fixture(scope="module")
def store() -> Warehouse:
    """A warehouse in which Dagster has materialized every asset but the report."""
    with dg.instance_for_test() as instance:
        for name, tags in stages(instance):
            job = defs.resolve_job_def(name)
            wanted = [key for key in job.asset_layer.selected_asset_keys]
            keys = [key for key in wanted if key.to_user_string() != "walk_forward_report"]
            job.execute_in_process(instance=instance, tags=tags, asset_selection=keys)
    return Warehouse(SETTINGS.warehouse_path)


def test_the_chain_makes_what_the_assets_make(store: Warehouse) -> None:
    knowledge = Knowledge(
        store.rows("raw_ohlcv"), store.rows("raw_news"), store.rows("labelled_headlines")
    )
    made = chain.run(knowledge, SETTINGS)
    for table in TABLES:
        stored = store.rows(table)
        shared = [name for name in made[table].columns if name in stored.columns]
        assert set(stored.columns) - set(shared) <= LINEAGE, table
        assert len(stored) > 0, table
        difference = first_difference(
            {table: stored[shared]}, {table: made[table][shared]}, "chain", pd.Timestamp(0)
        )
        assert difference is None, difference


def test_the_audit_finds_the_stored_data_clean(store: Warehouse) -> None:
    findings = audit(store, ["AAPL", "MSFT"], SETTINGS, cuts=1)
    assert findings.clean, findings.differences
    assert (summary(findings)["rows"] > 0).all()


def test_the_whole_chain_does_not_look_ahead() -> None:
    """On a market that can be forecast, so that positions are held and could move."""
    knowledge, settings = town.knowledge(), town.settings()
    made = []

    def run(known: Knowledge) -> dict[str, pd.DataFrame]:
        made.append(chain.run(known, settings))
        return made[-1]

    findings = look_ahead(run, knowledge, [town.CUT], town.SESSIONS, town.close, VARIANTS)
    assert findings.clean, findings.differences
    held = made[0]["trading_decisions"]
    assert (held.loc[held["session"] <= town.CUT, "position"] != 0).sum() > 30
    assert {"strong", "none"} <= set(made[0]["evidence"]["grade"])
