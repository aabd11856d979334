"""What an asset's page says of its table: columns with their units, where each comes from, whose.

The layout is that of the warehouse's schema; the features declare themselves. What a name means is
said once here, since a column keeps its name from table to table.
"""

from collections.abc import Iterable, Iterator, Sequence

import dagster as dg

from rnn_pipeline.defs.features import COLUMNS
from rnn_pipeline.features import catalogue, price
from rnn_pipeline.features.cross_section import CROSS_FEATURES
from rnn_pipeline.features.sentiment import DECLARED_SENTIMENT, SPAN
from rnn_pipeline.warehouse.schema import TABLES

#: Who answers for the assets of a group.
OWNERS = {
    "market": ["team:data"],
    "features": ["team:research"],
    "networks": ["team:research"],
    "evidence": ["team:research"],
    "trading": ["team:trading"],
}

#: The table that holds an asset's rows, where it is not named like the asset.
_TABLES = {"sequence_windows": "window_sets", "walk_forward_forecasts": "forecasts"}

_MEANING = {
    "ticker": "symbol as the source spells it",
    "session": "trading day of the exchange (date)",
    "known_at": "when the row could be known (UTC)",
    "run_id": "Dagster's run that wrote the row",
    "revision": "0 is the first that was known; corrections follow",
    **dict.fromkeys(("open", "high", "low", "close"), "split-adjusted, currency per share"),
    "adj_close": "close adjusted for dividends, too; currency per share",
    "volume": "shares traded, split-adjusted",
    "dividend": "paid on this session, currency per share",
    "split": "new shares per old one; 1 or empty: none",
    "is_final": "asked for after the session's close",
    "provenance": "observed, assumed (first load of history) or released from quarantine",
    "reason": "why the row says what it says, in a sentence",
    "fetch_id": "the answer of the source that the row came in",
    "news_id": "of the story",
    "published_at": "by the provider (UTC)",
    "first_seen_at": "when the pipeline first met it (UTC)",
    "usable_at": "later of published and first seen; a session has what is usable at its close",
    "title": "headline",
    "summary": "first words of the story",
    "url": "address of the story",
    "provider": "who published it",
    "headline": "text",
    "label": "negative, neutral or positive; of a signal BUY, HOLD or SELL",
    "split_": "train or test",
    "source": "where it comes from",
    "sentiment": "mean score of the headlines usable at the close, -1 to +1; 0 without any",
    "news_count": "headlines usable since the close before",
    f"sentiment_mean_{SPAN}": f"mean of sentiment over {SPAN} sessions, -1 to +1",
    f"sentiment_std_{SPAN}": f"standard deviation of sentiment over {SPAN} sessions",
    f"sentiment_momentum_{SPAN}": f"sentiment less its mean over {SPAN} sessions",
    "sentiment_dispersion": "standard deviation among the session's headlines",
    "feature_set_hash": "of the declarations that made the features",
    "matrix": "folder of the memory-mapped matrix",
    "windows": "complete windows",
    "folds": "folds that the ticker takes part in",
    "status": "ok, or why not",
    "model": "name of the network or baseline; a recipe's number after @",
    "path": "file of the networks, below the data folder",
    "checkpoint_hash": "SHA-256 of that file",
    "networks": "how many",
    "tested_until": "last session of the newest test span",
    "code_version": "of the project that made it",
    "written_at": "UTC",
    "fold": "number of the walk-forward fold, from 0",
    "seed": "of the network's random numbers",
    "horizon": "sessions ahead",
    "forecast": "expected log return over the horizon",
    "version": "of the model in the registry; empty: of the walk-forward",
    "trained_until": "last session that its training could see",
    "model_hash": "of the networks that said it",
    "window_hash": "of the windows it was fitted on",
    "data_hash": "of the rows that went in",
    "study": "search that the trial belongs to",
    "trial": "number within its search",
    "state": "complete, pruned or failed",
    "value": "squared error on the inner validation rows; forecasting 0 has 1",
    "params": "settings that were tried, JSON",
    "epochs": "passes over the training rows",
    "finished_at": "UTC",
    "dispersion": "standard deviation between the forecasts, log return",
    "agreement": "share of the networks on the side of their mean, 0 to 1",
    "signal": "-1 (sell) to +1 (buy)",
    "weight": "what evidence lets it count, 0 to 1",
    "grade": "evidence of earlier folds: none, weak, moderate or strong",
    "abstains": "prices have no say: the networks disagree",
    "price_contribution": "what prices add to the signal",
    "sentiment_contribution": "what headlines add to the signal",
    "policy": "how sources became one signal",
    "position": "weight of the account to hold from the next open, -1 to +1",
    "previous_position": "the weight before",
    "limited_by": "the limit that made it smaller",
    "action": "what to do at the next open",
    "equity": "account, 1 at its start",
    "promise": "the backtest's account of the same sessions",
    **dict.fromkeys(
        ("revised", "missed", "drift", "slippage", "cost"),
        "part of equity less promise; see docs/operations.md",
    ),
    "net_return": "of the session, after costs",
    "gross_return": "of the session, before costs",
    "turnover": "sum of traded weights",
    "exposure": "sum of absolute weights",
}

#: Features of a ticker's own bars.
_OWN = (*catalogue.DECLARED, *price.MOVING_AVERAGES)
_BARS = ("open", "high", "low", "close", "adj_close", "volume")


def features() -> dict[str, str]:
    """Every declared feature of prices, with its formula."""
    own = {feature.name: feature.formula for feature in _OWN}
    return own | {feature.name: feature.formula for feature in CROSS_FEATURES}


def columns_of(asset: str) -> dict[str, tuple[str, str]]:
    """Columns of the asset's table with their type and their meaning; empty: it has no table."""
    table = "checkpoints" if asset.endswith("_forecaster") else _TABLES.get(asset, asset)
    if table not in TABLES:
        return {}
    told = dict(_declarations(TABLES[table]))
    meaning = _MEANING | features()
    if asset == "labelled_headlines":
        meaning["split"] = meaning["split_"]
    grown = {
        "price_features": list(features()),
        "news_sentiment": DECLARED_SENTIMENT,
        "model_features": COLUMNS,
    }
    told |= {name: told.get(name, "DOUBLE") for name in grown.get(asset, ())}
    return {name: (kind, meaning.get(name, "")) for name, kind in told.items()}


def _declarations(layout: str) -> Iterator[tuple[str, str]]:
    """Column and type of a table of the schema."""
    for column in layout.partition(", PRIMARY KEY (")[0].split(", "):
        name, kind, *_ = column.split()
        yield name, kind


def sources_of(asset: str) -> dict[str, list[tuple[str, str]]]:
    """Columns of the asset with the columns of other assets that they are made from."""
    match asset:
        case "price_features":
            own = {feature.name: feature.source for feature in _OWN}
            made = own | {feature.name: own[feature.base] for feature in CROSS_FEATURES}
            return {name: _from("raw_ohlcv", columns) for name, columns in made.items()}
        case "news_sentiment":
            text = _from("raw_news", ("title", "usable_at"))
            return dict.fromkeys(DECLARED_SENTIMENT, text)
        case "model_features":
            origin = dict.fromkeys(DECLARED_SENTIMENT, "news_sentiment")
            return {name: [(origin.get(name, "price_features"), name)] for name in COLUMNS}
        case "walk_forward_forecasts" | "baseline_forecasts":
            return {"forecast": [("model_features", name) for name in COLUMNS]}
        case "price_signals":
            return {"forecast": [("walk_forward_forecasts", "forecast")]} | {
                name: _from("walk_forward_forecasts", ("forecast", "seed", "model"))
                for name in ("dispersion", "agreement", "signal")
            }
        case "sentiment_signals":
            return {"signal": [("news_sentiment", "sentiment")]}
        case "trading_signals":
            price_side = _from("price_signals", ("signal", "weight"))
            news_side = _from("sentiment_signals", ("signal", "weight"))
            return {
                "forecast": [("price_signals", "forecast")],
                "sentiment": [("sentiment_signals", "signal")],
                "price_contribution": price_side,
                "sentiment_contribution": news_side,
                "signal": [*price_side, *news_side],
                "label": [*price_side, *news_side],
            }
        case "trading_decisions":
            sized = [("trading_signals", "signal"), ("price_features", "volatility_20")]
            same = ("forecast", "sentiment", "signal", "label", "grade")
            sizes = dict.fromkeys(("position", "action"), sized)
            return sizes | {name: [("trading_signals", name)] for name in same}
        case "paper_account":
            traded = [("trading_decisions", "position"), *_from("raw_ohlcv", _BARS[:1] + _BARS[4:])]
            return dict.fromkeys(("equity", "promise"), traded)
    return {}


def _from(asset: str, columns: Iterable[str]) -> list[tuple[str, str]]:
    # A session is no column that values are made of: every row has one.
    return [(asset, column) for column in columns if column != "session"]


def _origin(sources: Sequence[tuple[str, str]] | None) -> str:
    if not sources:
        return ""
    assets = list(dict.fromkeys(asset for asset, _ in sources))
    told = [
        f"{asset}.{own[0]}" if len(own) == 1 else f"{asset} ({', '.join(own)})"
        for asset in assets
        for own in ([column for source, column in sources if source == asset],)
    ]
    return f"; from {', '.join(told)}"


def with_columns(spec: dg.AssetSpec) -> dg.AssetSpec:
    """The asset with its owner, and with the columns, units and lineage of its table."""
    asset = spec.key.to_user_string()
    columns = columns_of(asset)
    metadata: dict[str, object] = {}
    made = sources_of(asset)
    if columns:
        # Dagster's open-source pages show columns, but not their lineage: say it there, too.
        schema = [
            dg.TableColumn(name, type=kind.lower(), description=meaning + _origin(made.get(name)))
            for name, (kind, meaning) in columns.items()
        ]
        metadata["dagster/column_schema"] = dg.TableSchema(schema)
    if made:
        metadata["dagster/column_lineage"] = dg.TableColumnLineage(
            {
                name: [dg.TableColumnDep(dg.AssetKey(source), column) for source, column in origins]
                for name, origins in made.items()
            }
        )
    return spec.replace_attributes(
        owners=OWNERS[spec.group_name or ""], metadata={**spec.metadata, **metadata}
    )
