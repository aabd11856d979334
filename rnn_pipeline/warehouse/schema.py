"""The tables, and the version of their layout.

Raw tables are append-only: a change of what is known is a new revision. Derived tables hold one
row per key and are replaced partition by partition; each carries ``run_id`` and the hashes of what
made the row. A derived table marked in :data:`OPEN_TABLES` grows one ``DOUBLE`` column for every
feature that is declared, so that a new feature needs no migration.
"""

from __future__ import annotations

import re

SCHEMA_VERSION = 4

_BAR = "open DOUBLE, high DOUBLE, low DOUBLE, close DOUBLE, adj_close DOUBLE, volume DOUBLE"
_KEY = "ticker VARCHAR NOT NULL, session DATE NOT NULL"
_SIGNAL_END = (
    "grade VARCHAR, reason VARCHAR, known_at TIMESTAMPTZ, run_id VARCHAR, data_hash VARCHAR,"
    " code_version VARCHAR, model_hash VARCHAR, PRIMARY KEY (ticker, session)"
)

TABLES: dict[str, str] = {
    "meta": "schema_version INTEGER NOT NULL, created_at TIMESTAMPTZ NOT NULL",
    # What was asked of a source and what it answered; the answer itself is a payload file.
    "raw_fetch": (
        "fetch_id VARCHAR PRIMARY KEY, entry INTEGER, kind VARCHAR, source VARCHAR,"
        " ticker VARCHAR, first DATE, last DATE, fetched_at TIMESTAMPTZ, media_type VARCHAR,"
        " url VARCHAR, payload_sha256 VARCHAR, payload_bytes BIGINT, currency VARCHAR,"
        " time_zone VARCHAR"
    ),
    "raw_ohlcv": (
        f"{_KEY}, revision INTEGER NOT NULL, known_at TIMESTAMPTZ NOT NULL, {_BAR},"
        " dividend DOUBLE, split DOUBLE, is_final BOOLEAN, provenance VARCHAR, reason VARCHAR,"
        " fetch_id VARCHAR, PRIMARY KEY (ticker, session, revision)"
    ),
    "raw_news": (
        "news_id VARCHAR NOT NULL, ticker VARCHAR NOT NULL, revision INTEGER NOT NULL,"
        " published_at TIMESTAMPTZ NOT NULL, first_seen_at TIMESTAMPTZ NOT NULL,"
        " known_at TIMESTAMPTZ NOT NULL, usable_at TIMESTAMPTZ NOT NULL, title VARCHAR,"
        " summary VARCHAR, url VARCHAR, provider VARCHAR, provenance VARCHAR, fetch_id VARCHAR,"
        " PRIMARY KEY (news_id, ticker, revision)"
    ),
    "corporate_actions": (
        f"{_KEY}, kind VARCHAR NOT NULL, revision INTEGER NOT NULL, value DOUBLE,"
        " known_at TIMESTAMPTZ, fetch_id VARCHAR, PRIMARY KEY (ticker, session, kind, revision)"
    ),
    # Whether a ticker can be relied on, as of the last time that it was asked for.
    "ticker_status": (
        "ticker VARCHAR PRIMARY KEY, status VARCHAR, reason VARCHAR, first_session DATE,"
        " last_session DATE, sessions BIGINT, missing BIGINT, checked_at TIMESTAMPTZ"
    ),
    # Sessions of the calendar between a ticker's first and last bar that have none.
    "missing_sessions": f"{_KEY}, checked_at TIMESTAMPTZ, PRIMARY KEY (ticker, session)",
    # What the rows of all tickers of a session were made from, and how many there were: see inputs.
    "made_from": (
        "asset VARCHAR, session DATE, inputs VARCHAR, rows BIGINT, run_id VARCHAR,"
        " PRIMARY KEY (asset, session)"
    ),
    "labelled_headlines": (
        "headline VARCHAR PRIMARY KEY, label VARCHAR, split VARCHAR, source VARCHAR"
    ),
    "quarantine": (
        "quarantine_id VARCHAR PRIMARY KEY, table_name VARCHAR, ticker VARCHAR, rule VARCHAR,"
        " row_json VARCHAR, fetch_id VARCHAR, quarantined_at TIMESTAMPTZ,"
        " released_at TIMESTAMPTZ"
    ),
    "ingest_ledger": (
        "entry INTEGER, run_id VARCHAR, table_name VARCHAR, ticker VARCHAR, first DATE, last DATE,"
        " rows_in BIGINT, inserted BIGINT, revised BIGINT, unchanged BIGINT, quarantined BIGINT,"
        " status VARCHAR, committed_at TIMESTAMPTZ"
    ),
    "price_features": (
        f"{_KEY}, known_at TIMESTAMPTZ, feature_set_hash VARCHAR, run_id VARCHAR,"
        " PRIMARY KEY (ticker, session)"
    ),
    "targets": (
        f"{_KEY}, horizon INTEGER, target DOUBLE, target_session DATE, run_id VARCHAR,"
        " PRIMARY KEY (ticker, session, horizon)"
    ),
    "news_sentiment": (
        f"{_KEY}, sentiment DOUBLE, news_count BIGINT, sentiment_mean_5 DOUBLE,"
        " sentiment_std_5 DOUBLE, known_at TIMESTAMPTZ, model_hash VARCHAR, run_id VARCHAR,"
        " PRIMARY KEY (ticker, session)"
    ),
    "model_features": (
        f"{_KEY}, known_at TIMESTAMPTZ, feature_set_hash VARCHAR, run_id VARCHAR,"
        " PRIMARY KEY (ticker, session)"
    ),
    "window_sets": (
        "ticker VARCHAR PRIMARY KEY, matrix VARCHAR, windows BIGINT, folds BIGINT,"
        " status VARCHAR, run_id VARCHAR"
    ),
    "checkpoints": (
        "ticker VARCHAR, model VARCHAR, path VARCHAR, checkpoint_hash VARCHAR, networks INTEGER,"
        " tested_until DATE, code_version VARCHAR, written_at TIMESTAMPTZ, run_id VARCHAR,"
        " PRIMARY KEY (ticker, model)"
    ),
    "training_history": (
        "ticker VARCHAR, model VARCHAR, fold INTEGER, seed INTEGER, epoch INTEGER,"
        " train_loss DOUBLE, val_loss DOUBLE, PRIMARY KEY (ticker, model, fold, seed, epoch)"
    ),
    # Every network that was tried to choose settings, pruned ones included: one row is one trial.
    # What a trial saw ended before the test sessions of its fold; it was usable from known_at on.
    "tuning_trials": (
        "study VARCHAR, ticker VARCHAR, model VARCHAR, fold INTEGER, trial INTEGER, state VARCHAR,"
        " value DOUBLE, params VARCHAR, epochs INTEGER, known_at TIMESTAMPTZ,"
        " finished_at TIMESTAMPTZ, run_id VARCHAR, code_version VARCHAR,"
        " PRIMARY KEY (study, trial)"
    ),
    "folds": (
        "fold INTEGER, role VARCHAR, first_session DATE, last_session DATE, sessions INTEGER,"
        " PRIMARY KEY (fold, role)"
    ),
    "forecasts": (
        f"{_KEY}, fold INTEGER, model VARCHAR, seed INTEGER, horizon INTEGER, forecast DOUBLE,"
        " known_at TIMESTAMPTZ, model_hash VARCHAR, feature_set_hash VARCHAR,"
        " code_version VARCHAR, version VARCHAR, trained_until DATE, run_id VARCHAR,"
        " PRIMARY KEY (ticker, session, model, seed, horizon)"
    ),
    # What became of which version of a model, and from which session on; rows are only added.
    "models": (
        "event INTEGER PRIMARY KEY, ticker VARCHAR, slot VARCHAR, model VARCHAR, version VARCHAR,"
        " recipe VARCHAR, grid VARCHAR, horizon INTEGER, pooled BOOLEAN, fold INTEGER,"
        " trained_until DATE,"
        " tested_until DATE, seen_until DATE, checkpoint VARCHAR, code_version VARCHAR,"
        " created_at TIMESTAMPTZ, state VARCHAR, was VARCHAR, from_session DATE,"
        " changed_at TIMESTAMPTZ, change VARCHAR, reason VARCHAR, run_id VARCHAR"
    ),
    # Of networks that forecast quantiles beside the point: level in (0, 1), quantile a log return.
    "forecast_quantiles": (
        f"{_KEY}, fold INTEGER, model VARCHAR, seed INTEGER, horizon INTEGER, level DOUBLE,"
        " quantile DOUBLE, known_at TIMESTAMPTZ, model_hash VARCHAR, feature_set_hash VARCHAR,"
        " code_version VARCHAR, run_id VARCHAR,"
        " PRIMARY KEY (ticker, session, model, seed, horizon, level)"
    ),
    # What networks must beat; a table of its own, so that nothing of it can be traded.
    "baseline_forecasts": (
        f"{_KEY}, fold INTEGER, model VARCHAR, seed INTEGER, horizon INTEGER, forecast DOUBLE,"
        " known_at TIMESTAMPTZ, model_hash VARCHAR, window_hash VARCHAR,"
        " feature_set_hash VARCHAR, run_id VARCHAR,"
        " PRIMARY KEY (ticker, session, model, seed, horizon)"
    ),
    # Every recipe whose forecasts were ever held against outcomes; rows are only added.
    "trials": (
        "ticker VARCHAR, model VARCHAR, seed INTEGER, network_hash VARCHAR,"
        " feature_set_hash VARCHAR, training_hash VARCHAR, tuning_trials INTEGER,"
        " tried_at TIMESTAMPTZ, run_id VARCHAR"
    ),
    "evidence": (
        "ticker VARCHAR, model VARCHAR, fold INTEGER, n BIGINT, n_effective DOUBLE, ic DOUBLE,"
        " ic_t DOUBLE, hit_rate DOUBLE, hit_low DOUBLE, hit_high DOUBLE, r2_vs_zero DOUBLE,"
        " forecast_std DOUBLE, seed_dispersion DOUBLE, sign_flip_rate DOUBLE, trials INTEGER,"
        " p_value DOUBLE, grade VARCHAR,"
        " known_at TIMESTAMPTZ, run_id VARCHAR, PRIMARY KEY (ticker, model, fold)"
    ),
    "price_signals": (
        f"{_KEY}, forecast DOUBLE, dispersion DOUBLE, agreement DOUBLE, networks INTEGER,"
        f" signal DOUBLE, weight DOUBLE, feature_set_hash VARCHAR, {_SIGNAL_END}"
    ),
    "sentiment_signals": (
        f"{_KEY}, forecast DOUBLE, dispersion DOUBLE, signal DOUBLE, weight DOUBLE, {_SIGNAL_END}"
    ),
    # What each source adds to the signal of its ticker and session: they add up to it.
    "signal_contributions": (
        f"{_KEY}, source VARCHAR, horizon INTEGER, fold INTEGER, networks INTEGER, forecast DOUBLE,"
        " dispersion DOUBLE, standardised DOUBLE, grade VARCHAR, abstains BOOLEAN, weight DOUBLE,"
        " contribution DOUBLE, known_at TIMESTAMPTZ, run_id VARCHAR,"
        " PRIMARY KEY (ticker, session, source, horizon)"
    ),
    "trading_signals": (
        f"{_KEY}, forecast DOUBLE, dispersion DOUBLE, agreement DOUBLE, abstains BOOLEAN,"
        " sentiment DOUBLE, price_contribution DOUBLE, sentiment_contribution DOUBLE,"
        " signal DOUBLE, label VARCHAR, policy VARCHAR, feature_set_hash VARCHAR,"
        f" {_SIGNAL_END}"
    ),
    "trading_decisions": (
        f"{_KEY}, forecast DOUBLE, sentiment DOUBLE, signal DOUBLE, label VARCHAR, policy VARCHAR,"
        " position DOUBLE, previous_position DOUBLE, limited_by VARCHAR, action VARCHAR,"
        f" feature_set_hash VARCHAR, {_SIGNAL_END}"
    ),
    # The account that trades the decisions: the next session's limits look back at it.
    "trading_account": (
        "session DATE PRIMARY KEY, equity DOUBLE, peak DOUBLE, drawdown DOUBLE,"
        " cash_sessions INTEGER, gross DOUBLE, net DOUBLE, turnover DOUBLE, known_at TIMESTAMPTZ,"
        " run_id VARCHAR"
    ),
    # Decisions as they were when they were made; rows are only added.
    "paper_orders": (
        f"{_KEY}, position DOUBLE, known_at TIMESTAMPTZ, run_id VARCHAR,"
        " PRIMARY KEY (ticker, session)"
    ),
    # What became of each order at the open of its session; missed says why it was not filled.
    "paper_fills": (
        f"{_KEY}, decided DATE, price DOUBLE, weight_before DOUBLE, weight_wanted DOUBLE,"
        " weight_after DOUBLE, cost DOUBLE, slippage DOUBLE, missed VARCHAR, run_id VARCHAR,"
        " PRIMARY KEY (ticker, session)"
    ),
    # equity = promise + revised + missed + drift + slippage + cost.
    "paper_account": (
        "session DATE PRIMARY KEY, equity DOUBLE, promise DOUBLE, revised DOUBLE, missed DOUBLE,"
        " drift DOUBLE, slippage DOUBLE, cost DOUBLE, net_return DOUBLE, gross_return DOUBLE,"
        " turnover DOUBLE, exposure DOUBLE, run_id VARCHAR"
    ),
}

_KEY_OF_COLUMN = re.compile(r"(\w+) (\w+) PRIMARY KEY")
_KEY_OF_TABLE = re.compile(r", PRIMARY KEY \(([^)]*)\)")


def _primary_key(columns: str) -> tuple[str, ...]:
    if named := _KEY_OF_TABLE.search(columns):
        return tuple(named[1].split(", "))
    column = _KEY_OF_COLUMN.search(columns)
    return (column[1],) if column else ()


#: Columns of the primary key, of each table that has one.
KEYS: dict[str, tuple[str, ...]] = {
    table: key for table, columns in TABLES.items() if (key := _primary_key(columns))
}


def without_keys(columns: str) -> str:
    """A table's columns without its primary key, for an engine that has no such constraint."""
    return _KEY_OF_COLUMN.sub(r"\1 \2", _KEY_OF_TABLE.sub("", columns))


OPEN_TABLES = frozenset({"price_features", "model_features", "news_sentiment"})

_WITH_OUTCOME = (
    "SELECT f.*, t.target AS actual, t.target_session"
    " FROM {} f LEFT JOIN targets t USING (ticker, session, horizon)"
)
#: Of each session's champions alone; who was never registered is heard.
_HEARD = (
    "SELECT f.* FROM {} f ASOF LEFT JOIN champions c"
    " ON f.ticker = c.ticker AND split_part(f.model, '@', 1) = c.slot"
    "   AND f.session >= c.from_session"
    " WHERE c.slot IS NULL OR c.model = f.model"
)
VIEWS: dict[str, str] = {
    # From which session on which model speaks in a slot; NULL where a champion left it empty.
    "champions": (
        "SELECT ticker, slot, from_session, CASE state WHEN 'champion' THEN model END AS model"
        " FROM models WHERE state = 'champion' OR was = 'champion'"
        " QUALIFY event = max(event) OVER (PARTITION BY ticker, slot, from_session)"
    ),
    # A forecast beside what then happened; the outcome is unknown (NULL) until its session.
    # Of every recipe that was trained, whether it may speak or not:
    "recipe_forecasts": _WITH_OUTCOME.format("forecasts"),
    "walk_forward_forecasts": _HEARD.format("recipe_forecasts"),
    "walk_forward_baselines": _WITH_OUTCOME.format("baseline_forecasts"),
    "walk_forward_quantiles": _HEARD.format(f"({_WITH_OUTCOME.format('forecast_quantiles')})"),
    # Networks and baselines side by side, for whoever asks which is better.
    "all_forecasts": (
        "SELECT 'network' AS kind, * FROM walk_forward_forecasts UNION ALL BY NAME"
        " SELECT 'baseline' AS kind, * FROM walk_forward_baselines"
    ),
    # For other programs: these columns keep their names, order and meaning (docs/trading.md).
    "decisions_v1": (
        "SELECT session, ticker, action, position, previous_position, label, signal, forecast,"
        " sentiment, grade, policy, limited_by, reason, known_at, data_hash, feature_set_hash,"
        " code_version, model_hash FROM trading_decisions"
    ),
}
