"""Inference whose bits do not depend on the company a row is computed in."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from rnn_pipeline.networks.devices import numerics
from rnn_pipeline.networks.fleet import TrainedMember, check_ends, windows_of
from rnn_pipeline.networks.recurrent import RecurrentForecaster


def infer(forward: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    """Evaluate ``forward`` row by row, so that a row's bits depend on nothing but the row.

    Matrix kernels choose the order of a sum by the shape of the product, and some also by where a
    row lies in it (MKL does for vanilla networks of 5 or 6 units): in a batch the last bits of a
    forecast depend on its neighbours' number and places. Alone it always meets the same kernels,
    and the forecast made on its day equals the one made for a whole history. This costs about 0.2
    ms a row, ten times a batch's share: nothing for a day, a quarter of training's time for folds
    of 1,000 training and 250 test sessions.

    Args:
        forward: gathers the given rows into memory of their own, because kernels look at its
            alignment, too, and calls a network (in evaluation mode): (1,) int64 to (1, n_outputs).
        rows: (n,) int64 with n >= 1, on the network's device.

    Returns:
        (n, n_outputs)
    """
    with numerics(rows.device), torch.inference_mode():
        return torch.cat([forward(row) for row in rows.split(1)])


def predict_member(trained: TrainedMember, inputs: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Forecast with one trained member, on the CPU wherever it was trained.

    Args:
        trained: the member.
        inputs: (rows, n_features) float32, scaled as its training inputs were.
        ends: (n,) rows where the windows end, inclusive.

    Returns:
        (n,) float32, scaled as its training targets were.

    Raises:
        ValueError: wrong number of features, or a window that reaches outside the rows or holds a
            value that is not finite.
    """
    if inputs.ndim != 2 or inputs.shape[1] != trained.n_features:
        raise ValueError(
            f"member {trained.key!r} was trained on {trained.n_features} features, but inputs have"
            f" shape {inputs.shape}"
        )
    if len(ends) == 0:
        return np.empty(0, np.float32)
    check_ends(f"member {trained.key!r}", ends, trained.lookback, len(inputs))
    network = RecurrentForecaster(trained.network_spec, trained.n_features)
    network.load_state_dict(trained.state)
    network.eval()
    windows = windows_of(torch.tensor(inputs, dtype=torch.float32), trained.lookback)
    starts = torch.tensor(ends, dtype=torch.int64) - (trained.lookback - 1)

    def forward(starts: Tensor) -> Tensor:
        return network(windows.index_select(0, starts))

    forecasts = infer(forward, starts)[:, 0].numpy()
    if not np.isfinite(forecasts).all():
        end = ends[int(np.argmin(np.isfinite(forecasts)))]
        raise ValueError(
            f"member {trained.key!r}: the forecast at row {end} is not finite; a value in rows"
            f" {end - trained.lookback + 1} to {end} of the inputs is NaN or infinite"
        )
    return forecasts
