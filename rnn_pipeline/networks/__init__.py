"""The recurrent networks: what they are, how they learn, how they forecast, how they are kept.

:mod:`~rnn_pipeline.networks.cells` writes the cells out from their equations;
:mod:`~rnn_pipeline.networks.recurrent` holds ``RecurrentForecaster`` (its cell is a parameter), its
kin ``LSTMNet``, ``GRUNet`` and ``StackedLSTM``, :mod:`~rnn_pipeline.networks.reading`
``SentimentLSTM``;
:mod:`~rnn_pipeline.networks.estimators` wraps them as ``TradingLSTM``, ``TradingGRU`` and
``MultivariateLSTM``, which need no pipeline; :mod:`~rnn_pipeline.networks.training` holds the one
loop, ``fit``; :mod:`~rnn_pipeline.networks.fleet` ``train_members``, through which every forecaster
is trained, by one of the :mod:`~rnn_pipeline.networks.backends` in
:mod:`~rnn_pipeline.networks.kernels`; :mod:`~rnn_pipeline.networks.inference` ``predict_members``,
whose bits do not depend on what else is computed; :mod:`~rnn_pipeline.networks.sentiment`
``SentimentClassifier``, which needs no pipeline either;
:mod:`~rnn_pipeline.networks.checkpoints` ``save_members``, ``load_members``, ``load_metadata`` and
the hashes, and ``FitFile``, from which a killed training goes on;
:mod:`~rnn_pipeline.networks.tuning` ``tune``, the search for settings;
:mod:`~rnn_pipeline.networks.tensorboard` ``log_history``;
:mod:`~rnn_pipeline.networks.devices` ``resolve_device``. The modules import torch, so
code that Dagster loads at start imports them inside functions.
"""
