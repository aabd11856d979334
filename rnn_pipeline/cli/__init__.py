"""The ``rnn-pipeline`` command: each module has the commands about one thing."""

from __future__ import annotations

import click

from rnn_pipeline.cli.data import quarantine, rebuild
from rnn_pipeline.cli.models import models, promote, rollback
from rnn_pipeline.cli.proof import lookahead, replay, tune
from rnn_pipeline.cli.running import demo, prepare, run_job, ui

__all__ = ["main", "prepare", "run_job"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="rnn-pipeline")
def main() -> None:
    """Daily trading research and live signals from recurrent networks."""


COMMANDS = (
    *(demo, lookahead, models, promote, quarantine),
    *(rebuild, replay, rollback, tune, ui),
)
for command in COMMANDS:
    main.add_command(command)
