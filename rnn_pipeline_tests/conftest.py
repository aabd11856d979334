"""Settings of the tests, in force before anything of the pipeline is imported."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

for name in list(os.environ):
    if name.startswith("RNN_PIPELINE_"):
        del os.environ[name]
_HOME = tempfile.mkdtemp(prefix="rnn-pipeline-tests-")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
os.environ["RNN_PIPELINE_SETTINGS_FILE"] = str(Path(__file__).with_name("settings.toml"))
os.environ["RNN_PIPELINE_DATA_DIR"] = _HOME
os.environ.pop("DAGSTER_HOME", None)
