"""What happened on the market, as it was known.

:class:`~rnn_pipeline.market.calendar.SessionCalendar` says when an exchange trades and closes.
:mod:`~rnn_pipeline.market.sources` defines what a source of bars or headlines is;
:class:`~rnn_pipeline.market.sample.SampleSource` (embedded, offline, its headlines written by
:func:`~rnn_pipeline.market.wrap.market_wrap`) and
:class:`~rnn_pipeline.market.yahoo.YahooSource` (live) are the sources.
:func:`~rnn_pipeline.market.grammar.labelled_corpus` writes the labelled headlines that the
sentiment network learns from. :mod:`~rnn_pipeline.market.quality` parts good rows from bad ones,
and :func:`~rnn_pipeline.market.ingest.ingest_bars` and
:func:`~rnn_pipeline.market.ingest.ingest_headlines` take them into the warehouse.
"""
