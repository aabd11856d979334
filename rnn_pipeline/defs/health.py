"""Checks that page before the open: the examinations of ``rnn_pipeline.health`` as asset checks."""

from datetime import UTC, datetime, timedelta

import dagster as dg

from rnn_pipeline import health
from rnn_pipeline.defs.evidence import walk_forward_forecasts
from rnn_pipeline.defs.guidance import says_why
from rnn_pipeline.defs.market import raw_ohlcv
from rnn_pipeline.defs.paper import paper_account
from rnn_pipeline.defs.partitions import SETTINGS, last_day, universe
from rnn_pipeline.defs.resources import WAREHOUSE_POOL, WarehouseResource
from rnn_pipeline.defs.trading import trading_decisions, trading_signals
from rnn_pipeline.warehouse import Warehouse

#: Metadata of a check: under which key its alert is told, so that the doctor's is the same one.
ALERT_KEY = "alert_key"


def patient(store: Warehouse) -> health.Patient:
    """The pipeline of the settings, now."""
    return health.Patient(
        SETTINGS, store, universe(SETTINGS), last_day(SETTINGS), datetime.now(UTC)
    )


def _check(
    asset: dg.AssetsDefinition, name: str, examination: health.Examination
) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=asset, name=name, description=examination.__doc__, pool=WAREHOUSE_POOL)
    @says_why
    def check(warehouse: WarehouseResource) -> dg.AssetCheckResult:
        found = examination(patient(warehouse.store))
        broken = found.state == "broken"
        mend = f"; run: {found.command}" if found.command else ""
        return dg.AssetCheckResult(
            passed=found.state == "healthy",
            severity=dg.AssetCheckSeverity.ERROR if broken else dg.AssetCheckSeverity.WARN,
            description=f"{found.says}{mend}",
            metadata={ALERT_KEY: found.area, "command": found.command},
        )

    return check


bars_current = _check(raw_ohlcv, "bars_current", health.bars)
tickers_known = _check(raw_ohlcv, "tickers_known", health.tickers)
models_young = _check(walk_forward_forecasts, "models_young", health.models)
forecasts_as_graded = _check(walk_forward_forecasts, "forecasts_as_graded", health.forecast_drift)
evidence_kept = _check(walk_forward_forecasts, "evidence_kept", health.evidence)
signals_steady = _check(trading_signals, "signals_steady", health.flips)
decisions_current = _check(trading_decisions, "decisions_current", health.decisions)
paper_keeps_up = _check(paper_account, "paper_keeps_up", health.paper)

#: They look at what is stored, so they have a job of their own and hold up no other.
VITALS = (
    *(bars_current, tickers_known, models_young, forecasts_as_graded, evidence_kept),
    *(signals_steady, decisions_current, paper_keeps_up),
)

#: No calendar is in a window of hours: four days are the longest weekend with a holiday. That the
#: newest session is there, whatever the calendar, is for the checks to say.
_DAILY = dg.FreshnessPolicy.time_window(
    warn_window=timedelta(days=4, hours=6), fail_window=timedelta(days=7)
)

_FRESH_DAILY = frozenset(
    {"raw_ohlcv", "raw_news", "price_features", "trading_signals", "trading_decisions"}
)


def with_freshness(spec: dg.AssetSpec) -> dg.AssetSpec:
    """The asset with its freshness policy, where it has one."""
    fresh = spec.key.to_user_string() in _FRESH_DAILY
    return dg.apply_freshness_policy(spec, _DAILY) if fresh else spec
