"""Members trained one by one with torch: the oracle of the other kernels, and what runs anywhere.

A network this small hardly gains from a second thread, so as many are trained side by side as there
are workers, each on one thread. Workers are threads, or processes where Python's lock would hold
threads up; a member's bits are the same.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor, as_completed

import torch
from torch import Tensor, nn

from rnn_pipeline.networks.devices import Precision, numerics
from rnn_pipeline.networks.fleet import Member, TrainedMember, windows_of
from rnn_pipeline.networks.recurrent import (
    RecurrentForecaster,
    TickerForecaster,
    forecast_loss,
    initialise,
)
from rnn_pipeline.networks.training import fit


def train(
    members: Sequence[Member],
    *,
    on_trained: Callable[[int, TrainedMember], None],
    device: torch.device,
    workers: int,
    processes: bool = False,
    deterministic: bool = True,
    precision: Precision = "float32",
) -> None:
    """Train members of any kind.

    Args:
        members: what to train.
        on_trained: called in this thread with a member's place as soon as it is trained.
        device: where.
        workers: members trained at once.
        processes: each worker is a process of its own, which costs about 3 s to start.
        deterministic: see :func:`~rnn_pipeline.networks.devices.numerics`.
        precision: likewise; "float64" computes throughout, and returns weights, in that type.

    Raises:
        ValueError: a member's training failed; the message names its key. The rest is not trained.
    """
    workers = min(workers, len(members))
    pool: Executor
    if processes:
        # Spawned: a fork would copy a process whose threads hold locks.
        pool = ProcessPoolExecutor(
            workers,
            multiprocessing.get_context("spawn"),
            initializer=torch.set_num_threads,
            initargs=(1,),
        )
    else:
        # A new thread starts with OpenMP's own number of threads, whatever torch was told before.
        pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    with numerics(device, precision, deterministic), pool:
        try:
            places = {
                pool.submit(train_member, member, device, precision): place
                for place, member in enumerate(members)
            }
            for future in as_completed(places):
                on_trained(places[future], future.result())
        finally:
            pool.shutdown(cancel_futures=True)


def train_member(
    member: Member,
    device: torch.device,
    precision: Precision = "float32",
    on_epoch: Callable[[int, float, float], None] | None = None,
) -> TrainedMember:
    """Train one member on the calling thread, which must hold ``numerics``.

    Args:
        member: what to train.
        device: where.
        precision: as for :func:`train`.
        on_epoch: see :func:`~rnn_pipeline.networks.training.fit`.

    Raises:
        ValueError: its training failed; the message names its key.
    """
    n_features = member.inputs.shape[1]
    n_outputs, n_tickers = member.n_outputs, len(member.tickers)
    network: nn.Module = (
        TickerForecaster(member.network, n_features, n_outputs, n_tickers)
        if n_tickers
        else RecurrentForecaster(member.network, n_features, n_outputs)
    )
    if member.initial is None:
        initialise(network, torch.Generator().manual_seed(member.seed))
    else:
        network.load_state_dict(dict(member.initial))
    dtype = torch.float64 if precision == "float64" else torch.float32
    network.to(device, dtype)

    # torch.tensor copies: inputs may be a read-only memory map, and on a GPU they lie there once.
    inputs = torch.tensor(member.inputs, dtype=dtype, device=device)
    targets = torch.tensor(member.targets, dtype=dtype, device=device)
    owners = torch.tensor(member.owners, device=device) if n_tickers else None
    windows = windows_of(inputs, member.lookback)
    quantiles = member.network.quantiles

    def batch(ends: Tensor) -> tuple[Tensor, ...]:
        window = windows.index_select(0, ends - (member.lookback - 1))
        return (window, targets[ends]) if owners is None else (window, owners[ends], targets[ends])

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return forecast_loss(outputs, targets, quantiles)

    try:
        history = fit(
            network,
            loss,
            batch,
            torch.tensor(member.train_ends, dtype=torch.int64),
            torch.tensor(member.val_ends, dtype=torch.int64),
            member.training,
            member.seed,
            precision,
            on_epoch=on_epoch,
        )
    except ValueError as error:
        raise type(error)(f"member {member.key!r}: {error}") from None
    state = {name: value.cpu() for name, value in network.state_dict().items()}
    return TrainedMember(
        member.key, member.network, n_features, member.lookback, state, history, member.tickers
    )
