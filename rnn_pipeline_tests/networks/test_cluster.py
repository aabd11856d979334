"""On a real Ray cluster of three nodes on this machine, each with processes of its own."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rnn_pipeline.networks import cluster
from rnn_pipeline.networks.cluster import Cluster
from rnn_pipeline.networks.fleet import Compute, Member, Progress, TrainedMember, train_members
from rnn_pipeline.settings import NetworkSpec, TrainingSpec

from .members import CPU, REFERENCE, make_member
from .test_walk_forward import datasets, hashes, train

ray = pytest.importorskip("ray", reason="the extra ray is not installed")
cluster_utils = pytest.importorskip("ray.cluster_utils")

NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
RUNNING = "(ray::rnn_pipeli"
"""What /proc calls a worker that is at a task of a fleet."""


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """Three nodes with one processor each; the last test loses two of them."""
    made = cluster_utils.Cluster(initialize_head=True, head_node_args=NODE)
    for _ in range(2):
        made.add_node(**NODE)
    ray.init(made.address, logging_level="ERROR", log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture(autouse=True)
def small_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two networks or so in each."""
    monkeypatch.setattr(cluster, "TASK_S", 0.5)


def on_ray(**changes: Any) -> Compute:
    return replace(REFERENCE, cluster=Cluster("auto"), **changes)


def members(epochs: int = 20) -> list[Member]:
    """Nine networks of two architectures, three seeds on the same data."""
    spec = TrainingSpec(epochs=epochs, batch_size=32, patience=None)
    first = make_member(training=spec)
    made = [replace(first, key=f"one/{seed}", seed=seed) for seed in range(3)]
    made += [make_member(f"{seed}", training=spec, seed=seed) for seed in range(3, 6)]
    gru = NetworkSpec(cell="gru", hidden_sizes=(4, 3), dropout=0.2)
    return made + [make_member(f"g{seed}", network=gru, seed=seed) for seed in range(3)]


def busy_workers(node: Any) -> list[int]:
    """Processes of a node that are at a task."""
    (raylet,) = node.all_processes["raylet"]
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, rest = status.read_text().split(" ", 1)
        except OSError:
            continue  # it has ended
        parent = int(rest.rsplit(") ", 1)[1].split()[1])
        if rest.startswith(RUNNING) and parent == raylet.process.pid:
            found.append(int(pid))
    return found


def told_by(compute: Compute, of: list[Member]) -> tuple[list[TrainedMember], list[str]]:
    lines: list[str] = []
    return train_members(of, compute, progress=Progress(len(of), lines.append)), lines


def same(one: list[TrainedMember], other: list[TrainedMember]) -> None:
    for mine, theirs in zip(one, other, strict=True):
        assert mine.key == theirs.key
        assert mine.history == theirs.history
        for name, value in mine.state.items():
            assert np.array_equal(value, theirs.state[name])


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_a_cluster_trains_what_one_machine_trains(nodes: Any, backend: Any) -> None:
    on_one = train_members(members(), Compute(CPU, backend=backend))
    on_three, lines = told_by(on_ray(backend=backend), members())
    same(on_one, on_three)
    assert lines[-1].startswith("9 networks trained")


def test_data_goes_to_the_cluster_once(nodes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    put = ray.put
    monkeypatch.setattr(ray, "put", lambda value: sent.append(value) or put(value))
    train_members(members(1)[:6], on_ray())
    assert len(sent) == 4, "three seeds share theirs"


def test_an_error_of_training_names_its_network(nodes: Any) -> None:
    spoilt = make_member("spoilt")
    spoilt.inputs[50] = np.nan
    with pytest.raises(ValueError, match="'spoilt'"):
        train_members([make_member(), spoilt], on_ray())


def test_a_task_that_fits_no_node_is_refused(nodes: Any) -> None:
    with pytest.raises(RuntimeError, match=r"0 GPUs, a task asks for 1 and 1 .*compute\.ray_gpus"):
        train_members([make_member()], replace(REFERENCE, cluster=Cluster(gpus=1)))


def test_what_is_lost_is_put_again_in_halves_where_memory_gave_out() -> None:
    lines: list[str] = []
    task = cluster._Task([4, 5, 6])
    oom = ray.exceptions.OutOfMemoryError("killed")
    halves = cluster._again(ray, task, oom, 3, lines.append)
    assert [(half.places, half.lost) for half in halves] == [([4], 1), ([5, 6], 1)]
    (whole,) = cluster._again(ray, halves[1], ray.exceptions.NodeDiedError("x"), 3, lines.append)
    assert (whole.places, whole.lost) == ([5, 6], 2)
    assert lines == [
        "training 3 networks again: its node ran out of memory",
        "training 2 networks again: its node was lost (NodeDiedError)",
    ]
    with pytest.raises(RuntimeError, match=r"2 networks were lost 3 times .* ran out of memory"):
        cluster._again(ray, whole, oom, 2, lines.append)


def test_a_walk_forward_survives_a_killed_node_a_killed_process_and_a_slow_node(
    nodes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One network a task; each node loses its first one in another way, the head does the rest."""
    monkeypatch.setattr(cluster, "TASK_S", 0.0)
    training = TrainingSpec(epochs=60, batch_size=32, patience=None)
    head, slow, dying = nodes.head_node, *nodes.worker_nodes

    def disturb() -> None:
        for node in (head, slow, dying):
            deadline = time.monotonic() + 120
            while not (busy := busy_workers(node)):
                assert time.monotonic() < deadline, "no task reached the node"
                time.sleep(0.01)
            if node is head:
                os.kill(busy[0], signal.SIGKILL)
            elif node is slow:
                os.kill(busy[0], signal.SIGSTOP)
            else:
                nodes.remove_node(dying, allow_graceful=False)

    lines: list[str] = []
    disturbing = threading.Thread(target=disturb)
    disturbing.start()
    survived, trained = train(datasets(), compute=on_ray(), training=training, tell=lines.append)
    disturbing.join()
    assert trained == 18
    assert hashes(survived) == hashes(train(datasets(), training=training)[0])
    told = " ".join(lines)
    assert "training 1 networks again: its process died" in told
    assert "training 1 networks again: its node was lost" in told
    assert "training 1 networks twice" in told
