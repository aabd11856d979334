"""What a person looks at: pictures, tables and the HTML report, from frames alone.

:mod:`~rnn_pipeline.reporting.plots` and :mod:`~rnn_pipeline.reporting.evidence_plots` draw one
matplotlib figure per question (``coverage``, ``price_with_signals``; ``equity_curves``,
``rolling_ic``, ...), and the former turns it into bytes with ``png``, ``svg`` and ``data_uri``;
:mod:`~rnn_pipeline.reporting.tables` formats values and writes Markdown tables
(``table_markdown``, ``evidence_table_markdown``). A :class:`~rnn_pipeline.reporting.report.Report`
is filled from stored frames by :mod:`~rnn_pipeline.reporting.assemble`, summed up in words by
:mod:`~rnn_pipeline.reporting.verdict` and laid out as one self-contained page by
:mod:`~rnn_pipeline.reporting.html`. :mod:`~rnn_pipeline.reporting.style` holds the palette and the
layout they share. What is shown was computed by the wing it belongs to.
"""
