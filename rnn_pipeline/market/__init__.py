"""What happened on the market, as it was known.

:class:`~rnn_pipeline.market.calendar.SessionCalendar` says when an exchange trades and closes.
:mod:`~rnn_pipeline.market.sources` defines what a source of bars or headlines is. The sources are
:class:`~rnn_pipeline.market.sample.SampleSource` (embedded, offline, its headlines written by
:func:`~rnn_pipeline.market.wrap.market_wrap`),
:class:`~rnn_pipeline.market.yahoo.YahooSource` (live),
:class:`~rnn_pipeline.market.feeds.FeedSource` (RSS and Atom) and
:class:`~rnn_pipeline.market.files.FileSource` (a drop folder).
:func:`~rnn_pipeline.market.grammar.labelled_corpus` writes the labelled headlines that the
sentiment network learns from; :func:`~rnn_pipeline.market.labels.read_labels` reads others.
:mod:`~rnn_pipeline.market.quality` parts good rows from bad ones.
:func:`~rnn_pipeline.market.ingest.ingest_bars` and
:func:`~rnn_pipeline.market.ingest.ingest_headlines` take them into the warehouse:
:mod:`~rnn_pipeline.market.asking` asks, :mod:`~rnn_pipeline.market.commit` reads, compares and
writes, and :func:`~rnn_pipeline.market.rebuild.rebuild` does it again from what was kept.
"""
