"""A fleet trained on a Ray cluster: its members cut into tasks, their data sent once.

A member's result depends on neither its company nor its place, so which node trains it decides
nothing: on processors of one kind the weights are those of one machine, bit for bit. The backend is
chosen here, once for all nodes. A task that is lost is put again, for the same reason without harm,
and near the end a task that takes too long is given to another node beside the first. The data lies
with the node of the run itself, so no other node's end takes it away.

Ray unpickles what its nodes send each other: a cluster is one trust domain, behind a firewall.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from statistics import median
from typing import Any

import torch

from rnn_pipeline.networks.backends import reference_seconds
from rnn_pipeline.networks.fleet import Compute, Member, TrainedMember, train_members

TASK_S = 60.0
"""Estimated seconds of work for the reference in one task: what a lost one costs at most, about."""

SLOW = 3.0
"""A task that has taken so many times the median, when there is nothing else left to do, is given
to another node, too."""

_SHARED = ("inputs", "targets", "train_ends", "val_ends", "owners")


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster and what a task asks of it."""

    address: str = "auto"
    """As ``ray.init`` takes it; auto: the cluster of this machine."""
    cpus: int = 1
    """Of each task; it trains so many members at once."""
    gpus: float = 0.0
    """Of each task; above 0 its members train on a GPU, stacked."""
    retries: int = 3
    """How often a task may be lost before that is an error."""


@dataclass(eq=False)
class _Task:
    """Some members on their way."""

    places: list[int]
    """Where they stand in the group."""
    lost: int = 0
    begun: float = 0.0
    refs: list[Any] = field(default_factory=list)
    """What is awaited: more than one where a slow node has been given company."""


def train(
    members: Sequence[Member],
    *,
    cluster: Cluster,
    compute: Compute,
    tell: Callable[[str], None],
    on_trained: Callable[[int, TrainedMember], None],
) -> None:
    """Train members of one architecture on a cluster.

    Args:
        members: to be trained.
        cluster: where.
        compute: how; with the backend that every node takes.
        tell: takes lines that say what was put again, and why.
        on_trained: called in this thread with a member's place and itself, as tasks end.

    Raises:
        ValueError: a member's training failed; the message names its key. Or Ray is missing.
        RuntimeError: there is no cluster at the address, no node of it has room for a task, or a
            task was lost more often than ``cluster.retries``; the message says how.
    """
    ray = connected(cluster.address)
    if cluster.gpus:
        compute = replace(compute, device=torch.device("cuda"))
    slots = _slots(ray.nodes(), cluster)
    if not slots:
        raise RuntimeError(
            f"no node of the Ray cluster has the {cluster.cpus} CPUs and {cluster.gpus:g} GPUs that"
            " a task asks for (compute.ray_cpus, compute.ray_gpus); 'ray status' shows what it has"
        )
    remote = ray.remote(_work).options(
        num_cpus=cluster.cpus, num_gpus=cluster.gpus, max_retries=0, name="rnn_pipeline.fleet"
    )
    data = _Data(ray.put)

    def submit(task: _Task) -> None:
        own = [members[place] for place in task.places]
        sent = [_without_data(member) for member in own]
        refs, which = data.of(own)
        task.refs.append(remote.remote(sent, which, compute, cluster.cpus, *refs))
        task.begun = time.monotonic()
        flying[task.refs[-1]] = task

    flying: dict[Any, _Task] = {}
    waiting = list(_tasks(members))[::-1]
    seconds: list[float] = []
    try:
        while waiting or flying:
            # One task more than there is room for: a node that is done need not wait for us.
            while waiting and len(flying) <= slots:
                submit(waiting.pop())
            done, _ = ray.wait(list(flying), timeout=1.0)
            for ref in done:
                task = flying.pop(ref)
                task.refs.remove(ref)
                try:
                    trained = ray.get(ref)
                except ray.exceptions.RayError as error:
                    waiting += _again(ray, task, error, cluster.retries, tell)
                    continue
                for other in task.refs:
                    del flying[other]
                    ray.cancel(other, force=True)
                seconds.append(time.monotonic() - task.begun)
                for place, member in zip(task.places, trained, strict=True):
                    on_trained(place, member)
            if (room := _slots(ray.nodes(), cluster)) != slots:
                tell(f"the Ray cluster has room for {room} tasks at once now, {slots} before")
                slots = room
            if seconds and not waiting and len(flying) < slots:
                usual = median(seconds)
                for task in list(flying.values()):
                    taken = time.monotonic() - task.begun
                    if len(task.refs) == 1 and taken > 1 + SLOW * usual:
                        tell(
                            f"training {len(task.places)} networks twice: it has taken"
                            f" {taken:.0f} s on one node, {usual:.0f} s is usual"
                        )
                        submit(task)
    finally:
        # Where an error leaves, nobody waits for the rest.
        for ref in flying:
            ray.cancel(ref, force=True)


def connected(address: str) -> Any:
    """The module ``ray``, connected to a cluster.

    Raises:
        ValueError: Ray is not installed.
        RuntimeError: there is no cluster at the address.
    """
    try:
        import ray
    except ModuleNotFoundError:
        raise ValueError(
            "compute.ray is set, but Ray is not installed: pip install 'rnn-pipeline[ray]'"
        ) from None
    if not ray.is_initialized():
        host, _, port = address.removeprefix("ray://").rpartition(":")
        try:
            if port.isdigit():  # Ray itself asks for minutes
                socket.create_connection((host, int(port)), timeout=10).close()
            ray.init(address, logging_level=logging.ERROR, log_to_driver=False)
        except (OSError, RuntimeError) as error:
            raise RuntimeError(
                f"no Ray cluster answers at {address!r} (compute.ray): start one with"
                f" 'ray start --head', or leave the setting away ({error})"
            ) from None
    return ray


def _work(
    sent: list[dict[str, Any]], which: list[int], compute: Compute, cpus: int, *data: Any
) -> list[TrainedMember]:
    """What a node does: as many members at once as the task has processors."""
    torch.set_num_threads(cpus)
    members = [
        Member(**own, **dict(zip(_SHARED, data[place], strict=True)))
        for own, place in zip(sent, which, strict=True)
    ]
    return train_members(members, compute)


class _Data:
    """Arrays of members in the object store, each once: the seeds of a fold share theirs.

    They stay there until the group is trained, so what is put is what its chunk's budget allows.
    """

    def __init__(self, put: Callable[[Any], Any]) -> None:
        self._put = put
        self._refs: dict[tuple[int, ...], Any] = {}

    def of(self, members: Sequence[Member]) -> tuple[list[Any], list[int]]:
        """References to what members learn from, and each member's place among them."""
        places: dict[tuple[int, ...], int] = {}
        which = []
        for member in members:
            arrays = tuple(getattr(member, name) for name in _SHARED)
            # The caller holds the members until all are trained, so no id comes twice.
            key = tuple(map(id, arrays))
            if key not in self._refs:
                self._refs[key] = self._put(arrays)
            which.append(places.setdefault(key, len(places)))
        return [self._refs[key] for key in places], which


def _without_data(member: Member) -> dict[str, Any]:
    """What is a member's own."""
    return {
        one.name: getattr(member, one.name) for one in fields(member) if one.name not in _SHARED
    }


def _tasks(members: Sequence[Member]) -> Iterator[_Task]:
    """Members cut into tasks of about ``TASK_S``, in their order."""
    places: list[int] = []
    work = 0.0
    for place, member in enumerate(members):
        seconds = reference_seconds(member)
        if places and work + seconds > TASK_S:
            yield _Task(places)
            places, work = [], 0.0
        places.append(place)
        work += seconds
    if places:
        yield _Task(places)


def _again(
    ray: Any, task: _Task, error: Exception, retries: int, tell: Callable[[str], None]
) -> list[_Task]:
    """What to put again for a task that came back without its members.

    One whose process or memory gave out comes back in halves.

    Raises:
        ValueError: what training raised.
        RuntimeError: it was lost too often.
    """
    failed = ray.exceptions
    # Raised by what trained, or by Ray, whose memory monitor killed the task's process.
    out_of_memory = isinstance(
        error, (MemoryError, torch.OutOfMemoryError, failed.OutOfMemoryError)
    )
    if isinstance(error, failed.RayTaskError) and not out_of_memory:
        cause = error.cause
        raise ValueError(str(cause)) if isinstance(cause, ValueError) else error
    if isinstance(error, failed.TaskCancelledError):
        raise error  # from outside: what is cancelled here is not awaited
    if task.refs:
        return []  # another node is at it
    if out_of_memory:
        why = "its node ran out of memory"
    elif isinstance(error, failed.WorkerCrashedError):
        why = "its process died"
    else:
        why = f"its node was lost ({type(error).__name__})"
    lost = task.lost + 1
    if lost > retries:
        raise RuntimeError(
            f"{len(task.places)} networks were lost {lost} times on the Ray cluster, the last time"
            f" because {why}; see 'ray status' and the cluster's log"
        )
    halves = [task.places]
    if len(task.places) > 1 and (out_of_memory or isinstance(error, failed.WorkerCrashedError)):
        middle = len(task.places) // 2
        halves = [task.places[:middle], task.places[middle:]]
    tell(f"training {len(task.places)} networks again: {why}")
    return [_Task(half, lost) for half in halves]


def _slots(nodes: Iterable[Mapping[str, Any]], cluster: Cluster) -> int:
    """Tasks that a cluster has room for at once, given what ``ray.nodes`` says of it."""
    room = 0
    for node in nodes:
        if node["Alive"]:
            has = node["Resources"]
            fit = has.get("CPU", 0.0) / cluster.cpus
            if cluster.gpus:
                fit = min(fit, has.get("GPU", 0.0) / cluster.gpus)
            room += int(fit)
    return room
