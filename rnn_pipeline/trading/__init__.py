"""What to do about it: from forecasts and sentiment to one decision per ticker and session.

:func:`~rnn_pipeline.trading.fusion.price_signals` and
:func:`~rnn_pipeline.trading.fusion.sentiment_signals` turn forecasts into signals with their
evidence, :func:`~rnn_pipeline.trading.fusion.fuse` makes one signal of them,
:func:`~rnn_pipeline.trading.positions.size_positions` a weight under risk limits, and
:func:`~rnn_pipeline.trading.decisions.decide` a decision with its reasons. Frames in, frames out.
"""
