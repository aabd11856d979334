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
    forecasts: pd.DataFrame, quantiles: Sequence[float], by: Sequence[str] = ("model",)
) -> pd.DataFrame:
    """Share of outcomes at or below each forecast quantile, and its pinball loss.

    Args:
        forecasts: ``by``, session, horizon, actual (NaN while unknown) and a column ``q0.05`` for
            the quantile 0.05, and so on.
        quantiles: levels in (0, 1).
        by: columns that make a group.

    Returns:
        ``by``, quantile, n, coverage with its 95 % Wilson interval low and high, pinball (mean of
        max(q u, (q - 1) u), u = actual - forecast; Koenker and Bassett 1978).

    Raises:
        ValueError: a level outside (0, 1), or a column is missing.
    """
    outside = [level for level in quantiles if not 0 < level < 1]
    if outside:
        raise ValueError(f"quantiles {outside} are not levels: give numbers between 0 and 1")
    names = {level: f"q{level:g}" for level in quantiles}
    require(forecasts, "forecasts", (*by, "session", "horizon", "actual", *names.values()))
    known = forecasts[forecasts["actual"].notna()]
    keys = list(by)
    groups = known.groupby(keys)
    n = groups.size()
    effective = groups["session"].nunique() / groups["horizon"].max()
    tables = []
    for level, name in names.items():
        above = known["actual"] - known[name]
        figures = (
            pd.DataFrame(
                {"covered": above <= 0, "loss": np.maximum(level * above, above * (level - 1))}
            )
            .groupby([known[key] for key in keys])
            .mean()
        )
        low, high = wilson_interval(figures["covered"] * effective, effective)
        tables.append(
            pd.DataFrame(
                {
                    "quantile": level,
                    "n": n,
                    "coverage": figures["covered"],
                    "low": low,
                    "high": high,
                    "pinball": figures["loss"],
                }
            ).reset_index()
        )
    table = pd.concat(tables, ignore_index=True)
    return table.sort_values([*keys, "quantile"], ignore_index=True)
