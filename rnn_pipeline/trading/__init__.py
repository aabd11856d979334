"""What to do about it: from forecasts and sentiment to one decision per ticker and session.

:func:`~rnn_pipeline.trading.fusion.price_signals` and
:func:`~rnn_pipeline.trading.fusion.sentiment_signals` turn forecasts into signals with their
evidence, :func:`~rnn_pipeline.trading.fusion.contributions` asks the policy of the settings
(:func:`~rnn_pipeline.trading.policies.load_policy`) what each source adds, and
:func:`~rnn_pipeline.trading.fusion.fuse` adds it up.
:func:`~rnn_pipeline.trading.positions.size_positions` makes weights under risk limits, which go on
from the :class:`~rnn_pipeline.trading.account.Account` of the session before,
:func:`~rnn_pipeline.trading.decisions.decide` decisions with their reasons, and
:func:`~rnn_pipeline.trading.orders.orders` shares to buy and sell.
:mod:`~rnn_pipeline.trading.lineage` names what a signal was made of, and
:mod:`~rnn_pipeline.trading.paper` trades decisions on paper. Frames in, frames out.
"""
