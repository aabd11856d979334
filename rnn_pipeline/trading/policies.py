"""Policies: how much each source may say. A policy is one function, which the settings name.

A policy is given the sources of some tickers and sessions and answers, for each, what it says on a
common scale and how much that weighs; the product is the source's contribution to the signal.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rnn_pipeline.evidence.layouts import require
from rnn_pipeline.settings import OwnCodeError, TradingSpec, is_own_code, load_own_code

FULL_SIGNAL = 2.0
"""Standard deviations of a source's own earlier forecasts that make a full signal."""
SENTIMENT = "sentiment"
"""Name of the source that is no forecast of a return."""
HISTORY_COLUMNS = (
    "ticker", "session", "fold", "source", "horizon", "forecast", "actual", "target_session",
)  # fmt: skip

ANSWER = ("standardised", "weight")
"""What a policy says of a source: on a scale where 1 is a full signal, and how much it counts."""

_MOMENT = ["ticker", "session"]

History = Callable[[Collection[str]], pd.DataFrame]
"""Reads what the sources of some tickers said before, beside what came of it (`HISTORY_COLUMNS`).
It reads years for a day: ask for those tickers alone for whom something is learned."""

Policy = Callable[[pd.DataFrame, TradingSpec, History], pd.DataFrame]
"""Source rows (``fusion.SOURCE_COLUMNS`` and ``abstains``), settings and history to two columns
under the same index, `ANSWER`. A row's answer must rest on its own ticker and session and on what
was known of earlier folds alone; the look-ahead test runs it like everything else."""


def evidence(sources: pd.DataFrame, spec: TradingSpec, history: History) -> pd.DataFrame:
    """Weigh by evidence alone: the calibrated policy.

    Prices speak with the mean of their models, weighted by their grades, and with the weight of
    the best grade among them; sentiment adds what its own grade weighs.

    Within a grade all count alike: coefficients of two models that earned the same grade differ by
    less than their standard errors, so that weighing by them would weigh by noise.
    """
    allowed = _allowed(sources)
    price = sources["source"] != SENTIMENT
    groups = allowed.where(price, 0.0).groupby([sources[name] for name in _MOMENT])
    total, best = groups.transform("sum"), groups.transform("max")
    shared = (allowed * best / total.where(total > 0)).fillna(0.0)
    return pd.DataFrame(
        {"standardised": sources["standardised"], "weight": shared.where(price, allowed)}
    )


def threshold(sources: pd.DataFrame, spec: TradingSpec, history: History) -> pd.DataFrame:
    """The rule of the tutorials: act on the expected return, whatever the evidence.

    The mean forecast's simple return over the shortest horizon, ``exp(expected) - 1``, is BUY above
    ``buy_return`` and SELL below ``sell_return``: there the signal reaches ``buy_above`` or
    ``sell_below``. Sentiment does not count. The grade stands beside it, and without one nothing is
    held.
    """
    price = (sources["source"] != SENTIMENT) & ~sources["abstains"]
    said = sources["expected"].where(price)
    groups = said.groupby([sources[name] for name in _MOMENT])
    rises = groups.transform("mean") > 0
    unit = np.where(
        rises,
        spec.buy_above / np.log1p(spec.buy_return),
        spec.sell_below / np.log1p(spec.sell_return),
    )
    return pd.DataFrame(
        {
            "standardised": (said * unit).fillna(0.0),
            "weight": (1.0 / groups.transform("count")).where(price, 0.0),
        }
    )


def stacking(sources: pd.DataFrame, spec: TradingSpec, history: History) -> pd.DataFrame:
    """Learn from earlier folds who counts how much (stacked generalisation, Wolpert 1992).

    Evidence still says who may speak and how loud: the best grade among those with a share. For a
    ticker's fold, outcomes are regressed on the standardised forecasts of its graded sources, with
    shares that are not negative (Breiman 1996) and a ridge penalty, over forecasts of earlier folds
    whose outcome was known before the fold began. The shares are then made to add up to one, so
    that with one source this is the policy `evidence`.

    Raises:
        ValueError: the history lacks a column.
    """
    allowed = _allowed(sources)
    weight = pd.Series(0.0, index=sources.index)
    heard = sorted(sources.loc[allowed > 0, "ticker"].unique())
    if heard:
        past = history(heard)
        require(past, "history", HISTORY_COLUMNS)
        keys = ["ticker", "fold"]
        seen = pd.concat([past[[*keys, "session"]], sources[[*keys, "session"]]])
        begins = seen.groupby(keys)["session"].min()
        by_ticker = dict(iter(past.groupby("ticker")))
        graded = sources[(sources["grade"] != "none") & sources["ticker"].isin(heard)]
        for (ticker, fold), own in graded.groupby(keys):
            known = by_ticker.get(ticker, past.iloc[:0])
            known = known[known["target_session"] < begins[ticker, fold]]
            shares = _shares(own, known, spec.stacking_penalty)
            weight[own.index] = own["source"].map(shares).astype(np.float64)
        # Shares of those who do not abstain; the loudest of them sets the sum.
        weight = weight.where(allowed > 0, 0.0)
        groups = [sources[name] for name in _MOMENT]
        total = weight.groupby(groups).transform("sum")
        best = allowed.where(weight > 0, 0.0).groupby(groups).transform("max")
        weight = (weight * best / total.where(total > 0)).fillna(0.0)
    return pd.DataFrame({"standardised": sources["standardised"], "weight": weight})


def load_policy(name: str) -> Policy:
    """The policy of a name.

    Args:
        name: ``trading.policy``: of a function here, or ``module:function`` of one's own.

    Raises:
        ValueError: it cannot be loaded, or is no function; the message names the setting.
    """
    try:
        policy = load_own_code(name if is_own_code(name) else f"{__name__}:{name}")
    except OwnCodeError as error:
        raise ValueError(f"setting trading.policy: {error}") from None
    if not callable(policy):
        raise ValueError(f"setting trading.policy: {name!r} is no function but {policy!r}")
    return cast(Policy, policy)


def answer_of(
    name: str, sources: pd.DataFrame, spec: TradingSpec, history: History
) -> pd.DataFrame:
    """Ask the policy of a name, and check what it answers.

    Raises:
        ValueError: the policy cannot be loaded (see :func:`load_policy`), or its answer has other
            rows than ``sources``, lacks a column or holds what is no number.
    """
    answer = load_policy(name)(sources, spec, history)
    if not answer.index.equals(sources.index):
        raise ValueError(
            f"setting trading.policy: {name!r} answers for other rows than it was asked about: keep"
            " the index of the sources"
        )
    told = sources[_MOMENT].assign(**{column: answer.get(column) for column in ANSWER})
    require(told, f"the answer of trading.policy {name!r}", ANSWER, finite=ANSWER)
    return answer


def standardise(forecast: pd.Series, deviation: pd.Series | float) -> pd.Series:
    """Measure forecasts in full signals of a deviation, -1 to 1; 0 where there is none."""
    scale = FULL_SIGNAL * pd.Series(deviation, index=forecast.index, dtype=np.float64)
    return (forecast / scale.where(scale > 0)).clip(-1.0, 1.0).fillna(0.0)


def fit_shares(
    said: NDArray[np.float64], came: NDArray[np.float64], penalty: float
) -> NDArray[np.float64]:
    """Ridge regression with coefficients that are not negative (and a free intercept).

    Args:
        said: (n, sources) standardised forecasts.
        came: (n,) outcomes.
        penalty: forecasts of one standard deviation, each source's own, that came to nothing.

    Returns:
        (sources,) coefficients, in deviations of the outcome; all 0 where it never moved.
    """
    from scipy.optimize import nnls

    # scikit-learn's Ridge(positive=True) has the same optimum (a test compares), but stops short
    # of it: L-BFGS-B there, an active set here.
    deviation = came.std()
    if not deviation > 0:
        return np.zeros(said.shape[1])
    x, y = said - said.mean(axis=0), (came - came.mean()) / deviation
    prior = np.sqrt(penalty) / FULL_SIGNAL * np.eye(x.shape[1])
    return np.asarray(nnls(np.vstack([x, prior]), np.append(y, np.zeros(len(prior))))[0])


def _allowed(sources: pd.DataFrame) -> pd.Series:
    """What evidence lets each source weigh: nothing while the networks disagree."""
    return sources["evidence_weight"].where(~sources["abstains"], 0.0)


def _shares(own: pd.DataFrame, known: pd.DataFrame, penalty: float) -> dict[str, float]:
    """Fit one ticker's fold.

    Args:
        own: rows of the graded sources in this fold; each has one deviation throughout.
        known: the ticker's history with known outcomes. The outcome of a session is the return over
            the shortest horizon; a session counts when those of all its sources have come.
        penalty: of :func:`fit_shares`.
    """
    from threadpoolctl import threadpool_limits

    deviations = own.groupby("source")["forecast_std"].first()
    told = known[known["source"].isin(deviations.index)].pivot(
        index="session", columns="source", values="forecast"
    )
    # A session without headlines says nothing; one without a network's forecast is no session.
    told = told.reindex(columns=deviations.index)
    if SENTIMENT in told:
        told[SENTIMENT] = told[SENTIMENT].fillna(0.0)
    soonest = known[known["horizon"] == known["horizon"].min()].drop_duplicates("session")
    outcome = soonest.set_index("session")["actual"].reindex(told.index)
    whole = told.notna().all(axis=1) & outcome.notna()
    if not whole.any():
        return dict.fromkeys(deviations.index, 0.0)
    said = [standardise(told.loc[whole, name], deviations[name]) for name in deviations.index]
    with threadpool_limits(1):
        fitted = fit_shares(
            np.column_stack(said), outcome[whole].to_numpy(dtype=np.float64), penalty
        )
    return dict(zip(deviations.index, fitted.tolist(), strict=True))
