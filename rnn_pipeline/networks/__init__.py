"""The recurrent networks: what they are, how they learn, how they forecast, how they are kept.

:mod:`~rnn_pipeline.networks.recurrent` holds ``RecurrentForecaster`` (its cell is a
parameter); :mod:`~rnn_pipeline.networks.training` the one loop, ``fit``, and
``train_members``, through which every forecaster is trained;
:mod:`~rnn_pipeline.networks.inference` ``predict_member``, whose bits do not depend on what else is
computed; :mod:`~rnn_pipeline.networks.sentiment` ``SentimentClassifier``, whose networks are in
:mod:`~rnn_pipeline.networks.reading` (``SentimentLSTM``);
:mod:`~rnn_pipeline.networks.checkpoints` ``save_members``, ``load_members``, ``load_metadata`` and
the hashes; :mod:`~rnn_pipeline.networks.devices` ``resolve_device``. The modules import torch, so
code that Dagster loads at start imports them inside functions.
"""
