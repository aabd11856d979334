"""What a user reads when something is wrong: one line with the value and the fix, no trace."""

import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from rnn_pipeline.cli import main


def run(arguments, **environment):
    return subprocess.run(
        [sys.executable, "-c", "from rnn_pipeline.cli import main; main()", *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        ({"RNN_PIPELINE_EXCHANGE": "NOPE"}, "Error: setting exchange: exchange 'NOPE' has no"),
        ({"RNN_PIPELINE_FOLDS__TRAIN_SIZE": "ten"}, "Error: setting folds.train_size = 'ten':"),
        ({"RNN_PIPELINE_SAUCE": "x"}, "Error: environment variable RNN_PIPELINE_SAUCE: no setting"),
        ({"RNN_PIPELINE_TICKERS": "NOSUCH"}, "NOSUCH is not in the sample, which holds AAPL, FB"),
        ({"RNN_PIPELINE_COMPUTE__DEVICE": "cuda"}, "device 'cuda' was asked for, but torch"),
    ],
)
def test_bad_input_is_one_clear_line(tmp_path, environment, line):
    if "cuda" in line and _has_cuda():
        pytest.skip("there is a CUDA device")
    result = run(["demo"], RNN_PIPELINE_DATA_DIR=str(tmp_path), **environment)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    (error,) = [each for each in result.stderr.splitlines() if each.startswith("Error: ")]
    assert line in error
    assert result.stdout == ""


def _has_cuda():
    import torch

    return torch.cuda.is_available()


def test_every_command_explains_itself():
    runner = CliRunner()
    listed = runner.invoke(main, ["--help"])
    assert listed.exit_code == 0
    for name, command in main.commands.items():
        assert command.help, name
        assert runner.invoke(main, [name, "--help"]).exit_code == 0


@pytest.mark.parametrize(
    ("asked", "listens_on"), [([], "127.0.0.1"), (["--host", "0.0.0.0"], "0.0.0.0")]
)
def test_the_ui_is_for_this_machine_alone_unless_told_otherwise(
    tmp_path, monkeypatch, asked, listens_on
):
    monkeypatch.setenv("RNN_PIPELINE_DATA_DIR", str(tmp_path))
    started = []
    monkeypatch.setattr(subprocess, "call", lambda command, env: started.append(command) or 0)
    assert CliRunner().invoke(main, ["ui", "--port", "3999", *asked]).exit_code == 0
    ((*_, option, host, _, _),) = started
    assert (option, host) == ("--host", listens_on)
