"""neuralforecast at the same sizes; runs alone, in its own environment, and speaks JSON lines.

Epochs of 63 steps of 32 windows of one series, validated once: what a longer fit takes more than a
shorter one, so that Lightning's start-up is not counted.
"""

import json
import logging
import sys
import time
import warnings

import neuralforecast
import numpy as np
import pandas as pd
from neuralforecast import NeuralForecast
from neuralforecast.losses.pytorch import MSE
from neuralforecast.models import GRU, LSTM

warnings.filterwarnings("ignore")
logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

STEPS, BATCH_SIZE, LOOKBACK, N_TRAIN, N_VAL = 63, 32, 20, 2016, 500


def seconds(request: dict, epochs: int) -> float:
    features = [f"x{number}" for number in range(request["n_features"] - 1)]
    rng = np.random.default_rng(0)
    rows = LOOKBACK + N_TRAIN + N_VAL
    frame = pd.DataFrame(rng.standard_normal((rows, 1 + len(features))), columns=["y", *features])
    frame = frame.assign(unique_id="A", ds=pd.date_range("2010-01-01", periods=rows))
    model = {"lstm": LSTM, "gru": GRU}[request["cell"]](
        h=1,
        input_size=LOOKBACK,
        encoder_n_layers=request["layers"],
        encoder_hidden_size=request["hidden"],
        encoder_dropout=request["dropout"] if request["layers"] > 1 else 0.0,
        decoder_layers=1,
        recurrent=False,
        hist_exog_list=features or None,
        loss=MSE(),
        max_steps=epochs * STEPS,
        val_check_steps=STEPS,
        batch_size=1,
        windows_batch_size=BATCH_SIZE,
        inference_windows_batch_size=N_VAL,
        scaler_type="identity",
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    begun = time.perf_counter()
    NeuralForecast([model], freq="D").fit(frame, val_size=N_VAL)
    return time.perf_counter() - begun


print(json.dumps({"version": neuralforecast.__version__}), flush=True)
for line in sys.stdin:
    request = json.loads(line)
    short, long = seconds(request, 1), seconds(request, 3)
    print(json.dumps({"seconds_per_epoch": (long - short) / 2}), flush=True)
