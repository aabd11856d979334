"""Settings of the tests, in force before anything of the pipeline is imported."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest

for name in list(os.environ):
    if name.startswith("RNN_PIPELINE_"):
        del os.environ[name]
_HOME = tempfile.mkdtemp(prefix="rnn-pipeline-tests-")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
os.environ["RNN_PIPELINE_SETTINGS_FILE"] = str(Path(__file__).with_name("settings.toml"))
os.environ["RNN_PIPELINE_DATA_DIR"] = _HOME
os.environ.pop("DAGSTER_HOME", None)


@pytest.fixture(autouse=True)
def no_home_of_another_test():
    """Preparing Dagster's instance names its folder to the whole process: what a test starts in a
    process of its own would otherwise write into the instance of the test before."""
    os.environ.pop("DAGSTER_HOME", None)
    yield
    # Fixtures of a session or a module are set up before the next test pops it.
    os.environ.pop("DAGSTER_HOME", None)


@pytest.fixture(scope="session")
def demo():
    """The command that README names, run once on the small settings beside this file."""
    from click.testing import CliRunner

    from rnn_pipeline import cli

    return CliRunner().invoke(cli.main, ["demo"], catch_exceptions=False)
