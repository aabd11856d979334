"""Daily trading research and live signals from recurrent networks, provably point in time.

The wings follow the flow of data: :mod:`~rnn_pipeline.warehouse` keeps what was known and when,
:mod:`~rnn_pipeline.market` brings bars and headlines in, :mod:`~rnn_pipeline.features` turns them
into what the :mod:`~rnn_pipeline.networks` see, :mod:`~rnn_pipeline.evidence` asks whether the
forecasts are worth anything, :mod:`~rnn_pipeline.trading` decides what to do about it, and
:mod:`~rnn_pipeline.reporting` draws it. Only ``defs``, ``definitions`` and ``cli`` know Dagster.
"""
