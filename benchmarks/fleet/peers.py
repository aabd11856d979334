"""The usual ways, each written as its users would: seconds per network and epoch."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.fleet.sizes import BATCH_SIZE, LOOKBACK, Size, member


class Net(nn.Module):
    """Recurrent layers, dropout, linear head."""

    def __init__(self, size: Size, cell: str) -> None:
        super().__init__()
        layer = {"lstm": nn.LSTM, "gru": nn.GRU}[cell]
        layers = len(size.hidden_sizes)
        self.rnn = layer(
            size.n_features,
            size.hidden_sizes[0],
            layers,
            batch_first=True,
            dropout=size.dropout if layers > 1 else 0.0,
        )
        self.dropout = nn.Dropout(size.dropout)
        self.fc = nn.Linear(size.hidden_sizes[-1], 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out, _ = self.rnn(x)
        return self.fc(self.dropout(out[:, -1, :]))


def tutorial(size: Size, cell: str, epochs: int = 1) -> float:
    """(a) Windows by a Python loop, a DataLoader, Adam as it comes, all of torch's threads."""
    data = member(size, cell, seed=0, epochs=epochs)
    loaders = []
    for ends, shuffle in ((data.train_ends, True), (data.val_ends, False)):
        xs, ys = [], []
        for end in ends:
            xs.append(data.inputs[end - LOOKBACK + 1 : end + 1])
            ys.append(data.targets[end])
        dataset = TensorDataset(torch.tensor(np.array(xs)), torch.tensor(np.array(ys)).unsqueeze(1))
        loaders.append(DataLoader(dataset, batch_size=BATCH_SIZE, shuffle=shuffle))
    train_loader, val_loader = loaders
    model = Net(size, cell)
    criterion = nn.MSELoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    begun = time.perf_counter()
    for _ in range(epochs):
        model.train()
        total = 0.0
        for x, y in train_loader:
            optimizer.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            optimizer.step()
            total += loss.item()
        model.eval()
        with torch.no_grad():
            for x, y in val_loader:
                total += criterion(model(x), y).item()
    return (time.perf_counter() - begun) / epochs


def good_loop(size: Size, cell: str, epochs: int = 1, device: str = "cpu") -> float:
    """(b) Batches gathered from the series, fused Adam, one validation batch, losses left there."""
    data = member(size, cell, seed=0, epochs=epochs)
    inputs = torch.tensor(data.inputs, device=device)
    targets = torch.tensor(data.targets, device=device)
    windows = inputs.unfold(0, LOOKBACK, 1).transpose(1, 2)
    train_ends, val_ends = (
        torch.tensor(ends, device=device) for ends in (data.train_ends, data.val_ends)
    )
    model = Net(size, cell).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    begun = time.perf_counter()
    for _ in range(epochs):
        model.train()
        order = train_ends[torch.randperm(len(train_ends)).to(device)]
        total = torch.zeros((), device=device)
        for ends in order.split(BATCH_SIZE):
            optimizer.zero_grad()
            x = windows.index_select(0, ends - (LOOKBACK - 1))
            loss = nn.functional.mse_loss(model(x)[:, 0], targets[ends])
            loss.backward()
            optimizer.step()
            total += loss.detach()
        model.eval()
        with torch.inference_mode():
            x = windows.index_select(0, val_ends - (LOOKBACK - 1))
            total += nn.functional.mse_loss(model(x)[:, 0], targets[val_ends])
        total.item()
    return (time.perf_counter() - begun) / epochs


class Processes:
    """(c) The good loop in as many processes as cores, started beforehand."""

    def __init__(self, number: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipes: list[Connection] = []
        for _ in range(number):
            here, there = context.Pipe()
            context.Process(target=_serve, args=(there,), daemon=True).start()
            self.pipes.append(here)

    def __call__(self, size: Size, cell: str, epochs: int = 1) -> float:
        begun = time.perf_counter()
        for pipe in self.pipes:
            pipe.send((size, cell, epochs))
        for pipe in self.pipes:
            pipe.recv()
        return (time.perf_counter() - begun) / (epochs * len(self.pipes))


def _serve(pipe: Connection) -> None:
    torch.set_num_threads(1)
    try:
        while True:
            good_loop(*pipe.recv())
            pipe.send(None)
    except EOFError:  # the benchmark is over
        return


class Nixtla:
    """(d) neuralforecast's LSTM and GRU, in an environment of its own."""

    def __init__(self, python: Path) -> None:
        self.process = subprocess.Popen(
            [str(python), str(Path(__file__).with_name("nixtla.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # Lightning tells of every seed
            text=True,
        )
        self.version = self._answer()["version"]

    def __call__(self, size: Size, cell: str) -> float:
        assert self.process.stdin is not None
        request = {
            "cell": cell,
            "n_features": size.n_features,
            "hidden": size.hidden_sizes[0],
            "layers": len(size.hidden_sizes),
            "dropout": size.dropout,
        }
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._answer()["seconds_per_epoch"]

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        sys.exit(f"the environment of neuralforecast failed (status {self.process.wait()})")
