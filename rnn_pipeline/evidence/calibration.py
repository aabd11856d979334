"""Do forecasts mean what they say? Large ones large moves, and a 90 % quantile nine tenths.

Intervals count effective observations, as those of :mod:`~rnn_pipeline.evidence.metrics` do.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.special import ndtri

from rnn_pipeline.evidence.layouts import require
from rnn_pipeline.evidence.metrics import average_seeds, wilson_interval

BINS = 10
CALIBRATION = ("n", "coverage", "low", "high", "pinball", "unconditional", "skill")
_Z95 = float(ndtri(0.975))


def reliability(forecasts: pd.DataFrame, bins: int = BINS) -> pd.DataFrame:
    """Mean outcome of each model's forecasts, from the lowest to the highest of them.

    Args:
        forecasts: the forecasts frame; seeds are averaged, unknown outcomes left out.
        bins: groups of equally many forecasts.

    Returns:
        model, bin (0 is the lowest), n, forecast and actual (means, log returns), low and high (95
        % interval of ``actual`` by the normal law, over distinct sessions / horizon), by model and
        bin. Models whose forecasts are all equal, and bins that ties leave empty, are left out.
    """
    rows = average_seeds(forecasts)
    rows = rows[rows["actual"].notna()]
    by_model = rows.groupby("model")["forecast"]
    # The middle of its ties places a forecast, so that equal ones stay together.
    place = (by_model.rank() - 0.5) / by_model.transform("size")
    rows = rows.assign(bin=np.minimum((place * bins).astype(np.int64), bins - 1))
    rows = rows[by_model.transform("nunique") > 1]
    groups = rows.groupby(["model", "bin"])
    frame = groups.agg(
        n=("actual", "size"),
        forecast=("forecast", "mean"),
        actual=("actual", "mean"),
        deviation=("actual", "std"),
    )
    effective = groups["session"].nunique() / groups["horizon"].max()
    reach = _Z95 * frame.pop("deviation") / np.sqrt(effective)
    return frame.assign(low=frame["actual"] - reach, high=frame["actual"] + reach).reset_index()


def quantile_calibration(
    quantiles: pd.DataFrame,
    targets: pd.DataFrame,
    fold_table: pd.DataFrame,
    by: Sequence[str] = ("model",),
) -> pd.DataFrame:
    """Share of outcomes at or below each forecast quantile, and what the forecast was worth.

    Args:
        quantiles: ticker, session, fold, model, seed, horizon, level, quantile, actual (log
            returns, NaN while unknown); seeds are averaged, level by level.
        targets: ticker, session, horizon, target: what the unconditional quantiles come from.
        fold_table: fold, role, first_session, last_session.
        by: columns that make a group.

    Returns:
        ``by``, level, n, coverage with its 95 % Wilson interval low and high; pinball (mean of
        max(q u, (q - 1) u), u = actual - quantile; Koenker and Bassett 1978), unconditional, the
        same loss of the empirical quantile of the fold's training rows, and skill, the share of it
        that is saved: 1 - pinball / unconditional; sorted.

    Raises:
        ValueError: a level outside (0, 1), a column is missing, or a quantile stands twice.
    """
    keys = ["ticker", "session", "fold", "model", "horizon", "level"]
    require(
        quantiles,
        "quantiles",
        (*keys, "seed", "quantile", "actual"),
        unique=(*keys, "seed"),
        finite=("quantile",),
    )
    levels = sorted(quantiles["level"].unique())
    if outside := [float(level) for level in levels if not 0 < level < 1]:
        raise ValueError(f"{outside} are no levels of quantiles: give numbers between 0 and 1")
    rows = quantiles[quantiles["actual"].notna()].sort_values([*keys, "seed"])
    if rows.empty:
        return pd.DataFrame(columns=[*by, "level", *CALIBRATION])
    rows = rows.groupby(keys, as_index=False).agg(
        quantile=("quantile", "mean"), actual=("actual", "first")
    )
    learned = unconditional_quantiles(targets, fold_table, levels)
    rows = rows.merge(learned, on=["ticker", "horizon", "fold", "level"], how="left")
    level, actual = rows["level"], rows["actual"]
    rows["covered"] = actual <= rows["quantile"]
    for loss, forecast in (("pinball", "quantile"), ("unconditional", "unconditional")):
        above = actual - rows[forecast]
        rows[loss] = np.maximum(level * above, (level - 1) * above)
    groups = rows.groupby([*by, "level"])
    table = groups.agg(
        n=("actual", "size"),
        coverage=("covered", "mean"),
        pinball=("pinball", "mean"),
        unconditional=("unconditional", "mean"),
    )
    effective = groups["session"].nunique() / groups["horizon"].max()
    low, high = wilson_interval(table["coverage"] * effective, effective)
    skill = 1 - table["pinball"] / table["unconditional"].where(table["unconditional"] > 0)
    return table.assign(low=low, high=high, skill=skill)[list(CALIBRATION)].reset_index()


def unconditional_quantiles(
    targets: pd.DataFrame, fold_table: pd.DataFrame, levels: Sequence[float]
) -> pd.DataFrame:
    """Empirical quantiles of each ticker's outcomes in each fold's training span.

    Returns:
        ticker, horizon, fold, level, unconditional.
    """
    require(targets, "targets", ("ticker", "session", "horizon", "target"))
    spans = fold_table[fold_table["role"] == "train"]
    frames = [
        targets[targets["session"].between(span.first_session, span.last_session)]
        .groupby(["ticker", "horizon"])["target"]
        .quantile(list(levels))
        .rename_axis(["ticker", "horizon", "level"])
        .rename("unconditional")
        .reset_index()
        .assign(fold=span.fold)
        for span in spans.itertuples()
    ]
    none = pd.DataFrame(
        {"ticker": "", "horizon": 0, "level": [0.0], "unconditional": 0.0, "fold": 0}
    )[:0]
    return pd.concat(frames or [none], ignore_index=True)
