"""On a real Ray cluster of three nodes on this machine, each with processes of its own."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from rnn_pipeline.networks import cluster
from rnn_pipeline.networks.cluster import Cluster
from rnn_pipeline.networks.fleet import Compute, Member, Progress, TrainedMember, train_members
from rnn_pipeline.settings import NetworkSpec, TrainingSpec

from .members import CPU, REFERENCE, make_member
from .test_walk_forward import datasets, hashes, train

ray = pytest.importorskip("ray", reason="the extra ray is not installed")
cluster_utils = pytest.importorskip("ray.cluster_utils")

MIB = 2**20
NODE = {"num_cpus": 1, "object_store_memory": 80 * MIB}
HEAD = NODE | {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
"""Without the services that nobody looks at here: they take longer to start than the rest."""
LONG = TrainingSpec(epochs=60, batch_size=32, patience=None)
RUNNING = "(ray::rnn_pipeli"
"""What /proc calls a worker that is at a task of a fleet."""


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """Three nodes with one processor each; the last test loses one of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        made = cluster_utils.Cluster(initialize_head=True, head_node_args=HEAD)
        for _ in range(2):
            made.add_node(**NODE)
        ray.init(made.address, logging_level="ERROR", log_to_driver=False)
        yield made
        ray.shutdown()
        made.shutdown()


@pytest.fixture(autouse=True)
def small_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two networks in each."""
    monkeypatch.setattr(cluster, "TASK_S", 0.07)


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


def until(what: str, there: Callable[[], object]) -> None:
    """Wait for it, at most two minutes."""
    deadline = time.monotonic() + 120
    while not there():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.01)


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


def test_an_error_of_training_names_its_network_and_ends_the_others(nodes: Any) -> None:
    endless = [replace(long, key=long.key + "...") for long in members(1_000_000)[:2]]
    spoilt = make_member("spoilt")
    spoilt.inputs[50] = np.nan
    with pytest.raises(ValueError, match="'spoilt'"):
        train_members([*endless, spoilt], on_ray())
    until("the others to end", lambda: not any(map(busy_workers, nodes.list_all_nodes())))


def test_a_task_that_fits_no_node_is_refused(nodes: Any) -> None:
    """Three nodes with one processor each have three, but none of them has two."""
    with pytest.raises(RuntimeError, match=r"no node .* the 2 CPUs and 0 GPUs .*compute\.ray_cpus"):
        train_members([make_member()], replace(REFERENCE, cluster=Cluster(cpus=2)))
    with pytest.raises(RuntimeError, match=r"no node .* the 1 CPUs and 0.5 GPUs"):
        train_members([make_member()], replace(REFERENCE, cluster=Cluster(gpus=0.5)))


def test_a_task_that_rays_memory_monitor_kills_comes_back_in_halves(
    nodes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fourth node whose monitor acts at little more than what the machine uses now.

    A task of two networks takes memory there until it is killed; one of a single network does not.
    """
    monkeypatch.setattr(cluster, "TASK_S", 0.3)
    train_here, memory = cluster._work, psutil.virtual_memory()
    at_most = (memory.total - memory.available + 400 * MIB) / memory.total
    low = {"RAY_memory_usage_threshold": f"{at_most:.4f}", "RAY_memory_monitor_refresh_ms": "50"}
    small = nodes.add_node(**NODE, env_vars=low)
    there = small.node_id

    def greedy(sent: list[dict[str, Any]], *rest: Any) -> list[TrainedMember]:
        held = []
        if len(sent) > 1 and ray.get_runtime_context().get_node_id() == there:
            while len(held) < 13:
                held.append(b"x" * 100 * MIB)
                time.sleep(0.05)
            time.sleep(30)
            raise AssertionError("the memory monitor has killed nobody")
        return train_here(sent, *rest)

    monkeypatch.setattr(cluster, "_work", greedy)
    lines: list[str] = []

    def tell(line: str) -> None:
        lines.append(line)
        if "memory" in line and small in nodes.worker_nodes:
            # It has done its part. Where other processes take memory, too, it would go on.
            nodes.remove_node(small, allow_graceful=False)

    survived, trained = train(datasets(), compute=on_ray(), training=LONG, tell=tell)
    assert trained == 18
    assert hashes(survived) == hashes(train(datasets(), training=LONG)[0])
    assert "training 2 networks again: its node ran out of memory" in lines


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
    raised = ray.exceptions.RayTaskError("f", "its traceback", torch.OutOfMemoryError("of a GPU"))
    halves = cluster._again(ray, task, raised.as_instanceof_cause(), 3, lines.append)
    assert [half.places for half in halves] == [[4], [5, 6]]
    task.refs = ["at another node"]
    assert cluster._again(ray, task, oom, 3, lines.append) == []


def test_a_walk_forward_survives_a_killed_node_a_killed_process_and_a_slow_node(
    nodes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One network a task; each node loses its first one in another way, the head does the rest."""
    monkeypatch.setattr(cluster, "TASK_S", 0.0)
    head, slow, dying = nodes.head_node, *nodes.worker_nodes
    listed, gone = ray.nodes, set()

    def listed_at_once() -> list[dict[str, Any]]:
        """Ray takes longer to list a lost node as such than this test takes."""
        return [node | {"Alive": node["Alive"] and node["NodeID"] not in gone} for node in listed()]

    monkeypatch.setattr(ray, "nodes", listed_at_once)

    def disturb() -> None:
        for node in (head, slow, dying):
            until("a task to reach the node", lambda node=node: busy_workers(node))
            busy = busy_workers(node)
            if node is head:
                os.kill(busy[0], signal.SIGKILL)
            elif node is slow:
                os.kill(busy[0], signal.SIGSTOP)
            else:
                nodes.remove_node(dying, allow_graceful=False)
                gone.add(dying.node_id)

    lines: list[str] = []
    disturbing = threading.Thread(target=disturb)
    disturbing.start()
    survived, trained = train(datasets(), compute=on_ray(), training=LONG, tell=lines.append)
    disturbing.join()
    assert trained == 18
    assert hashes(survived) == hashes(train(datasets(), training=LONG)[0])
    told = " ".join(lines)
    assert "training 1 networks again: its process died" in told
    assert "training 1 networks again: its node was lost" in told
    assert "training 1 networks twice" in told
    assert "the Ray cluster has room for 2 tasks at once now, 3 before" in told


def test_an_address_at_which_nobody_answers_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # not listening
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(RuntimeError, match=f"no Ray cluster answers at '{address}'"):
            cluster.connected(address)
