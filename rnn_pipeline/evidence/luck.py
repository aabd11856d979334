"""What luck alone would have given: the best of many trials, and figures drawn again.

Everything here is about all forecasts with a known outcome at once and is for reading; what is
traded on is graded by :mod:`~rnn_pipeline.evidence.significance` alone. Random draws come from a
fixed seed, so that the same rows give the same bits, and later rows change nothing that is said of
earlier ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from rnn_pipeline.evidence.baselines import BASELINES
from rnn_pipeline.evidence.layouts import require
from rnn_pipeline.evidence.metrics import average_seeds

SEED = 20_140_101
REPETITIONS = 1000
MIN_SESSIONS = 60
"""Below this many independent sessions resampling tells nothing, and every figure is NaN."""
SPLITS = 10
"""Blocks of the combinatorially symmetric cross-validation; 10 make 252 ways to halve them."""
CONFIDENCE_SET_SIZE = 0.10

LUCK_COLUMNS = (
    "model",
    "sessions",
    "ic",
    "ic_low",
    "ic_high",
    "sharpe_ratio",
    "deflated_sharpe_ratio",
    "in_confidence_set",
    "superior_p",
)


@dataclass(frozen=True)
class Luck:
    """What luck leaves of the models' figures.

    Attributes:
        frame: one row per model, baselines included, in order of name: LUCK_COLUMNS (see
            :func:`luck`).
        superior_p: chance that the best of all models beats the best baseline by luck.
        overfitting: probability of backtest overfitting among all models and seeds.
        trials: what the Sharpe ratios were deflated by.
    """

    frame: pd.DataFrame
    superior_p: float
    overfitting: float
    trials: int


def luck(forecasts: pd.DataFrame, trials: int, sessions_per_year: int) -> Luck:
    """Put every model beside what the luck of many trials would have given.

    A session's return is the mean over tickers of sign(forecast) * actual, before costs; of
    forecasts over several sessions every horizon-th session counts. Its loss is the mean squared
    error.

    Args:
        forecasts: of one horizon, models and baselines.
        trials: how many were made (:mod:`~rnn_pipeline.evidence.trials`).
        sessions_per_year: what the Sharpe ratio is scaled by.

    Returns:
        Per model: ic with its 95 % stationary-bootstrap interval ic_low to ic_high;
        sharpe_ratio, annualised; deflated_sharpe_ratio, the probability that the true one is above
        what the best of ``trials`` without skill would show; in_confidence_set, whether it belongs
        to the models that cannot be told from the best; superior_p, the chance of its advantage
        over the best baseline if it had none (for baselines NaN). Figures that the rows cannot tell
        are NaN.

    Raises:
        ValueError: bad forecasts (see :func:`average_seeds`), or several horizons at once.
    """
    rows = average_seeds(forecasts)
    rows = rows[rows["actual"].notna()]
    if rows.empty:
        return Luck(pd.DataFrame(columns=list(LUCK_COLUMNS)), np.nan, np.nan, trials)
    horizons = rows["horizon"].unique()
    if len(horizons) > 1:
        raise ValueError(
            f"forecasts have the horizons {sorted(horizons.tolist())}; pass one horizon at a time"
        )
    horizon = int(horizons[0])
    returns = session_returns(rows, ["model"], horizon)
    each = session_returns(forecasts[forecasts["actual"].notna()], ["model", "seed"], horizon)
    each = each[[name for name in each if name[0] not in BASELINES]]
    losses = _by_session(rows, ["model"], (rows["forecast"] - rows["actual"]) ** 2)
    between = sharpe_ratios(each).var(ddof=1)
    known = [name for name in losses if name in BASELINES]
    models = [name for name in losses if name not in BASELINES]
    members = model_confidence_set(losses, horizon)
    frame = pd.DataFrame(
        [
            {
                "model": model,
                "sessions": rows.loc[rows["model"] == model, "session"].nunique(),
                **_interval_of_ic(rows[rows["model"] == model], horizon),
                "sharpe_ratio": sharpe_ratios(returns[[model]]).iloc[0]
                * np.sqrt(sessions_per_year / horizon),
                "deflated_sharpe_ratio": deflated_sharpe_ratio(
                    returns[model].to_numpy(), trials, between
                ),
                "in_confidence_set": model in members,
                "superior_p": np.nan
                if model in BASELINES
                else superior_predictive_ability(losses, known, [model], horizon),
            }
            for model in losses
        ],
        columns=list(LUCK_COLUMNS),
    )
    return Luck(
        frame,
        superior_predictive_ability(losses, known, models, horizon),
        probability_of_backtest_overfitting(each),
        trials,
    )


def luck_by_horizon(forecasts: pd.DataFrame, trials: int, sessions_per_year: int) -> Luck:
    """:func:`luck` of several horizons: models are held against baselines of their own.

    Args:
        forecasts: models, each of one horizon, and baselines of all horizons.
        trials: as of :func:`luck`.
        sessions_per_year: as of :func:`luck`.

    Returns:
        The models of all horizons, each held against its own's; the baselines and what is said of
        all models together are those of the shortest horizon.
    """
    if forecasts.empty:
        return luck(forecasts, trials, sessions_per_year)
    base, *further = [
        luck(own, trials, sessions_per_year) for _, own in forecasts.groupby("horizon")
    ]
    frames = [other.frame[~other.frame["model"].isin(BASELINES)] for other in further]
    frame = pd.concat([base.frame, *frames]).sort_values("model", ignore_index=True)
    return replace(base, frame=frame) if further else base


def session_returns(rows: pd.DataFrame, by: Sequence[str], horizon: int) -> pd.DataFrame:
    """Mean over tickers of sign(forecast) * actual, for every horizon-th session.

    Args:
        rows: session, forecast, actual and the columns of ``by``.
        by: what makes a column of the result.
        horizon: sessions over which outcomes overlap.

    Returns:
        Session by ``by``; the sessions that all columns have.
    """
    require(rows, "forecasts", ("session", "forecast", "actual", *by))
    return _by_session(rows, by, np.sign(rows["forecast"]) * rows["actual"]).iloc[::horizon]


def sign_sharpe_ratios(
    forecasts: pd.DataFrame, by: Sequence[str], sessions_per_year: int
) -> pd.DataFrame:
    """Annual Sharpe ratio of trading each forecast's sign, before costs, per group of ``by``.

    Seeds are averaged; a session's return is the mean over the group's tickers, and of forecasts
    over several sessions every horizon-th session counts.

    Returns:
        ``by``, sharpe_ratio: NaN for a group whose returns do not differ.
    """
    rows = average_seeds(forecasts)
    rows = rows[rows["actual"].notna()]
    rows = rows.assign(earned=np.sign(rows["forecast"]) * rows["actual"])
    keys = [*by, "horizon"]
    earned = rows.groupby([*keys, "session"])["earned"].mean().reset_index()
    earned = earned[earned.groupby(keys).cumcount() % earned["horizon"] == 0]
    groups = earned.groupby(keys)["earned"]
    deviation = groups.std(ddof=0)
    table = (groups.mean() / deviation.where(deviation > 0)).rename("sharpe_ratio").reset_index()
    table["sharpe_ratio"] *= np.sqrt(sessions_per_year / table.pop("horizon"))
    return table


def _by_session(rows: pd.DataFrame, by: Sequence[str], values: pd.Series) -> pd.DataFrame:
    keys = [rows["session"], *(rows[name] for name in by)]
    return (
        values.groupby(keys).mean().unstack(list(range(1, len(keys)))).dropna().sort_index(axis=1)
    )


def sharpe_ratios(returns: pd.DataFrame) -> pd.Series:
    """Mean over standard deviation of each column, per row; NaN for a column without spread."""
    deviation = returns.std(ddof=0)
    return returns.mean() / deviation.where(deviation > 0)


def deflated_sharpe_ratio(returns: np.ndarray, trials: int, between: float) -> float:
    """Probability that a Sharpe ratio is above the best of many without skill.

    Bailey and Lopez de Prado (2014): skewness, fat tails and length of the returns count, and the
    benchmark is the expected maximum of ``trials`` Sharpe ratios that scatter by ``between``. That
    is taken to be no less than the 1 / n by which ratios without skill scatter: seeds of one model
    resemble each other and would otherwise make many trials look like one.

    Args:
        returns: (n,) per period.
        trials: how many strategies were tried.
        between: variance of the Sharpe ratios among them, per period; NaN where there is one.

    Returns:
        NaN for fewer than ``MIN_SESSIONS`` returns, or returns without spread.
    """
    from purgedcv import deflated_sharpe_ratio as deflated

    n = len(returns)
    if n < MIN_SESSIONS or not np.ptp(returns) > 0:
        return np.nan
    return float(deflated(returns, int(trials), float(np.fmax(between, 1 / n))))


def probability_of_backtest_overfitting(returns: pd.DataFrame, splits: int = SPLITS) -> float:
    """How often the best of the first half is below the median of the second.

    Combinatorially symmetric cross-validation (Bailey, Borwein, Lopez de Prado and Zhu 2017): all
    ways to halve ``splits`` blocks of time. A strategy at the median itself counts half, so that
    luck alone gives one half with few strategies, too.

    Args:
        returns: sessions by strategies.
        splits: blocks; even.

    Returns:
        NaN for fewer than two strategies, or fewer than ``MIN_SESSIONS`` sessions.
    """
    from purgedcv import probability_of_backtest_overfitting as overfitting

    if returns.shape[1] < 2 or len(returns) < MIN_SESSIONS:
        return np.nan
    logits = overfitting(returns.to_numpy().T, splits).logits
    return float(np.mean(logits < 0) + np.mean(logits == 0) / 2)


def superior_predictive_ability(
    losses: pd.DataFrame, baselines: Sequence[str], models: Sequence[str], horizon: int = 1
) -> float:
    """The chance that the best of the models beats the best baseline by luck (Hansen 2005).

    Args:
        losses: sessions by model names.
        baselines: columns to beat; the one with the smallest mean loss is the benchmark.
        models: columns that may beat it.
        horizon: sessions over which losses overlap: blocks are at least as long.

    Returns:
        The consistent p-value; NaN without baselines or models, for too few sessions, or where no
        loss differs from the benchmark's.
    """
    from arch.bootstrap import SPA

    if not len(baselines) or not len(models) or len(losses) < MIN_SESSIONS * horizon:
        return np.nan
    benchmark = losses[losses[list(baselines)].mean().idxmin()].to_numpy()
    rivals = losses[list(models)].to_numpy()
    ahead = benchmark[:, None] - rivals
    if not (np.ptp(ahead, axis=0) > 0).all():
        return np.nan
    block = max(block_length(ahead[:, column], horizon) for column in range(ahead.shape[1]))
    test = SPA(benchmark, rivals, block_size=block, reps=REPETITIONS, seed=SEED)
    test.compute()
    return float(test.pvalues["consistent"])


def model_confidence_set(
    losses: pd.DataFrame, horizon: int = 1, size: float = CONFIDENCE_SET_SIZE
) -> list[str]:
    """The models that hold the best one with probability 1 - ``size`` (Hansen, Lunde, Nason 2011).

    Args:
        losses: sessions by model names.
        horizon: sessions over which losses overlap.
        size: chance that the best is not among them.

    Returns:
        Their names in order; all, where there are too few sessions to tell them apart.
    """
    from arch.bootstrap import MCS

    if losses.shape[1] < 2 or len(losses) < MIN_SESSIONS * horizon:
        return sorted(losses)
    # Equal columns have no spread to divide their difference by: one stands for all.
    apart = losses.loc[:, ~losses.T.duplicated()]
    if apart.shape[1] < 2:
        return sorted(losses)
    block = max(block_length(apart[name].to_numpy(), horizon) for name in apart)
    test = MCS(apart, size=size, block_size=block, reps=REPETITIONS, seed=SEED)
    test.compute()
    best = losses[test.included]
    return sorted(
        name for name in losses if any((losses[name] == best[other]).all() for other in best)
    )


def bootstrap_interval(
    series: np.ndarray, horizon: int = 1, level: float = 0.95
) -> tuple[float, float]:
    """Interval of a mean by the stationary bootstrap (Politis and Romano 1994).

    Args:
        series: (n,) one value per session, in order of time.
        horizon: sessions over which values overlap.
        level: of the interval between equal tails.

    Returns:
        NaN for fewer than ``MIN_SESSIONS`` independent values.
    """
    from arch.bootstrap import StationaryBootstrap

    if len(series) < MIN_SESSIONS * horizon:
        return np.nan, np.nan
    drawn = StationaryBootstrap(block_length(series, horizon), series, seed=SEED)
    means = drawn.apply(np.mean, REPETITIONS)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def block_length(series: np.ndarray, horizon: int) -> int:
    """Mean length of resampled blocks: Politis and White's (2004), three horizons, root n at most.

    Never below the horizons even where they exceed the root.
    """
    from arch.bootstrap import optimal_block_length

    longest = max(int(np.sqrt(len(series))), 3 * horizon)
    if not np.ptp(series) > 0:
        return 3 * horizon
    found = float(optimal_block_length(series)["stationary"].iloc[0])
    return int(np.clip(np.ceil(found), 3 * horizon, longest))


def _interval_of_ic(rows: pd.DataFrame, horizon: int) -> dict[str, float]:
    """Pooled rank correlation, and its interval from resampled sessions with the ranks kept."""
    ranks = rows[["forecast", "actual"]].rank() - (len(rows) + 1) / 2
    scale = np.sqrt((ranks["forecast"] ** 2).sum() * (ranks["actual"] ** 2).sum())
    if not scale > 0:
        return {"ic": np.nan, "ic_low": np.nan, "ic_high": np.nan}
    share = (ranks["forecast"] * ranks["actual"] / scale).groupby(rows["session"]).sum()
    low, high = bootstrap_interval(share.to_numpy() * len(share), horizon)
    return {"ic": float(share.sum()), "ic_low": low, "ic_high": high}
