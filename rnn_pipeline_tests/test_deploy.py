"""What can be said about ``deploy/`` where nothing of it can be started."""

import configparser
import re
from pathlib import Path

import pytest
import yaml
from dagster._core.instance.ref import InstanceRef

from rnn_pipeline.defs.resources import COMPUTE_POOL, WAREHOUSE_POOL
from rnn_pipeline.settings import PREFIX, load_settings

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
VALUES = yaml.safe_load((DEPLOY / "kubernetes/values.yaml").read_text())
PIPELINE = ("code", "daemon", "webserver")


def pins(path: Path) -> set[str]:
    return {line for line in path.read_text().splitlines() if line and not line.startswith("#")}


def test_dagster_understands_its_configuration(monkeypatch):
    monkeypatch.setenv("DAGSTER_PG_URL", "postgresql+psycopg2://dagster@host/dagster")
    ref = InstanceRef.from_dir(str(DEPLOY))
    assert ref.storage_data.module_name == "dagster_postgres"
    assert ref.run_coordinator_data.class_name == "QueuedRunCoordinator"
    assert ref.settings["concurrency"]["pools"] == {"default_limit": 1, "granularity": "op"}
    assert ref.settings["run_retries"]["enabled"]
    assert ref.settings["run_monitoring"]["free_slots_after_run_end_seconds"] > 0


def test_dagster_with_postgresql_names_the_driver_it_was_written_for():
    with_driver = "postgresql+psycopg2://"
    for service in PIPELINE:
        assert COMPOSE["services"][service]["environment"]["DAGSTER_PG_URL"].startswith(with_driver)
    assert VALUES["global"]
    assert VALUES["postgresql"]["postgresqlScheme"] == with_driver.removesuffix("://")


def test_compose_follows_its_specification():
    compose_spec = pytest.importorskip("compose_spec")
    parsed = compose_spec.PyCompose.from_yaml(yaml.safe_dump(COMPOSE))
    assert set(parsed.service_names()) == set(COMPOSE["services"])
    with pytest.raises(ValueError, match="depends"):
        compose_spec.PyCompose.from_yaml("services: {code: {image: i, depends: []}}")


def test_every_service_runs_the_image_of_the_one_dockerfile_or_a_published_one():
    own = {name for name, service in COMPOSE["services"].items() if "build" in service}
    assert own == {"code"}
    assert {COMPOSE["services"][name]["image"] for name in PIPELINE} == {"rnn-pipeline"}
    assert all("image" in service for service in COMPOSE["services"].values())


def test_ports_are_bound_to_loopback():
    ports = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert VALUES["dagsterWebserver"]["service"]["type"] == "ClusterIP"


def test_every_secret_is_required_and_named_in_the_example():
    text = (DEPLOY / "compose.yaml").read_text()
    example = (DEPLOY / ".env.example").read_text()
    assert set(re.findall(r"\$\{([A-Z_]+):\?\}", text)) == set(re.findall(r"(?m)^(\w+)=$", example))
    # A password may stand in a file as the name of a variable alone.
    assert not re.search(r"(?i)password[^:\n]*:\s*[a-z0-9]", text)


@pytest.mark.parametrize("where", ["compose", "kubernetes"])
def test_the_settings_of_the_containers_are_settings(where, monkeypatch):
    if where == "compose":
        given = COMPOSE["services"]["code"]["environment"]
    else:
        (deployment,) = VALUES["dagster-user-deployments"]["deployments"]
        given = {pair["name"]: pair["value"] for pair in deployment["env"]}
    for name, value in given.items():
        if name.startswith(PREFIX):
            monkeypatch.setenv(name, re.sub(r"\$\{\w+:-(\w*)\}", r"\1", value))
    settings = load_settings()
    assert settings.warehouse.engine == "ducklake"
    assert settings.warehouse.data_path.startswith("s3://")


def test_the_image_is_made_of_files_and_extras_that_are_there():
    text = (DEPLOY / "Dockerfile").read_text()
    for line in re.findall(r"(?m)^COPY (.+)$", text):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    (extras,) = re.findall(r"'\.\[([\w,]+)\]'", text)
    assert set(extras.split(",")) <= set(setup["options.extras_require"])
    lake = set(setup["options.extras_require"]["lake"].split())
    assert lake <= pins(DEPLOY / "constraints.txt")
    assert lake <= pins(Path(__file__).parent / "warehouse/requirements.txt")


def test_the_pools_are_those_that_the_assets_name():
    text = (DEPLOY / "README.md").read_text()
    for pool in (WAREHOUSE_POOL, COMPUTE_POOL):
        assert f"concurrency set {pool} " in text


def test_the_charts_limits_take_effect_and_are_set_in_one_place():
    """The chart leaves ``concurrency`` out unless told; Dagster refuses limits in two places."""
    assert VALUES["concurrency"]["enabled"] is True
    assert VALUES["concurrency"]["runs"]["maxConcurrentRuns"] > 1
    coordinator = VALUES["dagsterDaemon"]["runCoordinator"]["config"]["queuedRunCoordinator"]
    assert coordinator == {"maxConcurrentRuns": None}
