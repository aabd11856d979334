"""What a person looks at: pictures, tables and the HTML report, from frames alone.

:mod:`~rnn_pipeline.reporting.plots` draws one matplotlib figure per question (``coverage``,
``price_with_signals``, ``equity_curves``, ...) and turns it into bytes with ``png``, ``svg`` and
``data_uri``; :mod:`~rnn_pipeline.reporting.tables` formats values and writes Markdown tables
(``table_markdown``, ``evidence_table_markdown``); :mod:`~rnn_pipeline.reporting.html` renders a
``Report`` into one self-contained page with ``render_report``, and
:mod:`~rnn_pipeline.reporting.assemble` fills that ``Report`` from stored frames.
:mod:`~rnn_pipeline.reporting.style` holds the palette and the layout they share. What is shown was
computed by the wing it belongs to.
"""
