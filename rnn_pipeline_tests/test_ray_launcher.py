"""A whole run of Dagster as a job of a real Ray cluster, on which its networks train, too."""

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml

from rnn_pipeline_tests.warehouse.servers import free_port

pytest.importorskip("dagster_ray", reason="the extra ray is not installed")
pytest.importorskip("aiohttp_cors", reason="ray is installed without its job server")
cluster_utils = pytest.importorskip("ray.cluster_utils")
list_tasks = pytest.importorskip("ray.util.state").list_tasks

ROOT = Path(__file__).parents[1]
PATIENCE_S = 600.0


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """An instance that launches runs on a cluster, whose nodes see this process's environment."""
    port = free_port()
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setenv("RNN_PIPELINE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("RNN_PIPELINE_TICKERS", "AAPL")
    monkeypatch.setenv("RNN_PIPELINE_COMPUTE__RAY", "auto")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    # A job is a line for the shell and begins with `dagster`.
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.defpath]))
    launcher = yaml.safe_load((ROOT / "deploy" / "ray.yaml").read_text())
    launcher["run_launcher"]["config"]["ray"]["address"] = f"http://127.0.0.1:{port}"
    coordinator = {"module": "dagster.core.run_coordinator", "class": "DefaultRunCoordinator"}
    settings = {"telemetry": {"enabled": False}, "run_coordinator": coordinator, **launcher}
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(settings))
    node = {"num_cpus": 2, "object_store_memory": 80 * 2**20, "no_monitor": True}
    head = node | {"include_dashboard": True, "dashboard_port": port, "include_log_monitor": False}
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=head)
    with dg.DagsterInstance.get() as made:
        yield made
    cluster.shutdown()


def test_the_whole_graph_is_materialized_by_a_run_on_the_cluster(
    instance: dg.DagsterInstance,
) -> None:
    run_id = str(uuid.uuid4())
    launch = [sys.executable, "-m", "dagster", "job", "launch", "-m", "rnn_pipeline.definitions"]
    subprocess.run([*launch, "-j", "demo", "--run-id", run_id], check=True, cwd=ROOT)
    deadline = time.monotonic() + PATIENCE_S
    while not (run := instance.get_run_by_id(run_id)) or not run.is_finished:
        assert time.monotonic() < deadline, f"waited {PATIENCE_S:.0f} s"
        time.sleep(0.5)
    told = [record.message for record in instance.all_logs(run_id)]
    assert run.status is dg.DagsterRunStatus.SUCCESS, told
    assert "[RayRunLauncher] Ray run job created" in told
    address = instance.run_launcher.address  # type: ignore[attr-defined]
    tasks = list_tasks(address, filters=[("name", "=", "rnn_pipeline.fleet")])
    assert {task.state for task in tasks} == {"FINISHED"}, "networks were trained by tasks"
    stages = {stage.job_name: stage for stage in instance.get_runs() if stage.run_id != run_id}
    assert {name: stage.status.value for name, stage in stages.items()} == dict.fromkeys(
        ("refresh", "retrain", "decide"), "SUCCESS"
    )
