"""Is it true, and is it luck: forecasts against outcomes, baselines, costs and chance.

:func:`~rnn_pipeline.evidence.metrics.forecast_metrics` scores forecasts,
:func:`~rnn_pipeline.evidence.baselines.baseline_forecasts` says what knowing nothing would have
scored on the same rows, :func:`~rnn_pipeline.evidence.backtest.backtest` turns positions into an
account that pays for its trades, and
:func:`~rnn_pipeline.evidence.significance.evidence_by_fold` grades what each fold may be believed,
from the folds before it alone. Frames in, frames out; their columns are in
:mod:`~rnn_pipeline.evidence.layouts`.
"""
