"""Inference whose bits do not depend on the company a row is computed in."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from rnn_pipeline.networks.devices import numerics
from rnn_pipeline.networks.fleet import TrainedMember, check_ends, windows_of
from rnn_pipeline.networks.kernels import cpu
from rnn_pipeline.networks.recurrent import RecurrentForecaster, rearranged


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


def predict_members(
    members: Sequence[TrainedMember], inputs: Sequence[np.ndarray], ends: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Forecast with many trained members in one call, on the CPU wherever they were trained.

    The bits of a forecast depend on its member and its window and on nothing else in the call.

    Args:
        members: one per entry of ``inputs`` and ``ends``; a member may stand there repeatedly.
        inputs: (rows, n_features) float32, scaled as the member's training inputs were.
        ends: (n,) rows where the windows end, inclusive.

    Returns:
        For each (n, n_outputs) float32, scaled as its training targets were: a point forecast for
        each horizon, and behind it its quantiles, sorted.

    Raises:
        ValueError: wrong number of features, or a window that reaches outside the rows or holds a
            value that is not finite.
    """
    for member, rows, own in zip(members, inputs, ends, strict=True):
        if rows.ndim != 2 or rows.shape[1] != member.n_features:
            raise ValueError(
                f"member {member.key!r} was trained on {member.n_features} features, but inputs"
                f" have shape {rows.shape}"
            )
        if len(own):
            check_ends(f"member {member.key!r}", own, member.lookback, len(rows))
    if cpu.available() is None:
        outputs = cpu.predict(members, inputs, ends)
    else:
        outputs = list(map(_one_by_one, members, inputs, ends))
    for member, own, made in zip(members, ends, outputs, strict=True):
        finite = np.isfinite(made).all(axis=1)
        if not finite.all():
            end = own[int(np.argmin(finite))]
            raise ValueError(
                f"member {member.key!r}: the forecast at row {end} is not finite; a value in rows"
                f" {end - member.lookback + 1} to {end} of the inputs is NaN or infinite"
            )
    return [
        rearranged(torch.from_numpy(made), member.network_spec.quantiles).numpy()
        for member, made in zip(members, outputs, strict=True)
    ]


def _one_by_one(member: TrainedMember, inputs: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """One member's forecasts (n, n_outputs) by torch, a window per call."""
    if len(ends) == 0:
        return np.empty((0, member.n_outputs), np.float32)
    network = RecurrentForecaster(member.network_spec, member.n_features, member.n_outputs)
    network.load_state_dict(member.state)
    network.eval()
    windows = windows_of(torch.tensor(inputs, dtype=torch.float32), member.lookback)
    starts = torch.tensor(ends, dtype=torch.int64) - (member.lookback - 1)
    return infer(lambda start: network(windows.index_select(0, start)), starts).numpy()


def predict_member(trained: TrainedMember, inputs: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The point forecasts of the first horizon of one member: see :func:`predict_members`.

    Returns:
        (n,) float32.
    """
    return predict_members([trained], [inputs], [ends])[0][:, 0]
