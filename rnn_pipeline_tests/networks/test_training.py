from itertools import chain

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rnn_pipeline.networks.training import fit, learning_rates
from rnn_pipeline.settings import TrainingSpec


def test_every_row_is_visited_once_an_epoch_in_changing_order() -> None:
    visited: list[list[int]] = []
    network = nn.Linear(1, 1)
    x = torch.randn(20, 1)

    def batch(rows: Tensor) -> tuple[Tensor, Tensor]:
        visited.append(rows.tolist())
        return x[rows], x[rows]

    fit(
        network,
        nn.functional.mse_loss,
        batch,
        torch.arange(13),
        torch.arange(13, 20),
        TrainingSpec(epochs=2, batch_size=5, patience=None),
        seed=0,
    )
    assert [len(rows) for rows in visited] == [5, 5, 3, 7] * 2
    first, second = (list(chain(*visited[i : i + 3])) for i in (0, 4))
    assert sorted(first) == sorted(second) == list(range(13))
    assert first != second
    assert visited[3] == visited[7] == list(range(13, 20))


def test_no_rows_to_learn_from_or_to_stop_by_are_refused() -> None:
    arguments = (TrainingSpec(), 0)
    for train_rows, val_rows in ((0, 3), (3, 0)):
        with pytest.raises(ValueError, match=f"{train_rows} training and {val_rows} validation"):
            fit(
                nn.Linear(1, 1),
                nn.functional.mse_loss,
                lambda rows: (rows, rows),
                torch.arange(train_rows),
                torch.arange(val_rows),
                *arguments,
            )


def test_the_learning_rate_warms_up_and_follows_its_schedule() -> None:
    flat = TrainingSpec(epochs=3, batch_size=4, learning_rate=0.1)
    assert learning_rates(flat, 9).tolist() == [[0.1] * 3] * 3
    warm = flat.model_copy(update={"warmup_epochs": 1.0, "schedule": "cosine"})
    rates = learning_rates(warm, 9)
    np.testing.assert_allclose(rates[0], [0.1 / 3, 0.2 / 3, 0.1])
    np.testing.assert_allclose(
        rates[1:].ravel(), 0.05 * (1 + np.cos(np.pi * np.arange(1, 7) / 7)), rtol=1e-12
    )
    with pytest.raises(ValueError, match="warmup_epochs 4 is longer than the training's 3"):
        TrainingSpec(epochs=3, warmup_epochs=4)


def test_noise_is_added_to_the_inputs_of_training_alone() -> None:
    seen: dict[bool, list[Tensor]] = {True: [], False: []}

    class Watched(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            seen[self.training].append(x.detach().clone())
            return super().forward(x)

    x = torch.zeros(600, 2)
    spec = TrainingSpec(epochs=2, batch_size=250, input_noise=0.5, patience=None)
    fit(
        Watched(2, 1),
        nn.functional.mse_loss,
        lambda rows: (x[rows], x[rows, :1]),
        torch.arange(500),
        torch.arange(500, 600),
        spec,
        seed=3,
    )
    noise = torch.stack(seen[True])
    assert noise.std().item() == pytest.approx(0.5, rel=0.05)
    assert abs(noise.mean().item()) < 0.03
    assert noise.unique().numel() == noise.numel()
    assert not torch.stack(seen[False]).any()
