"""Is it true, and is it luck: forecasts against outcomes, baselines, costs and chance.

:func:`~rnn_pipeline.evidence.metrics.forecast_metrics` scores forecasts,
:func:`~rnn_pipeline.evidence.baselines.walk_forward_baselines` says what simpler methods forecast
from the same windows, :func:`~rnn_pipeline.evidence.backtest.backtest` turns positions into an
account that pays for its trades,
:func:`~rnn_pipeline.evidence.significance.evidence_by_fold` grades what each fold may be believed,
from the folds before it alone and with all :mod:`~rnn_pipeline.evidence.trials` counted, and
:func:`~rnn_pipeline.evidence.luck.luck` puts beside it what chance would have given. Frames in,
frames out; their columns are in :mod:`~rnn_pipeline.evidence.layouts`.
"""
