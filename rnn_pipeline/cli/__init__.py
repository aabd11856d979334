"""The ``rnn-pipeline`` command: each module has the commands about one thing."""

from __future__ import annotations

import click

from rnn_pipeline.cli.data import migrate, quarantine, rebuild, upgrade
from rnn_pipeline.cli.health import doctor, paper
from rnn_pipeline.cli.models import models, promote, rollback
from rnn_pipeline.cli.proof import lookahead, replay, tune
from rnn_pipeline.cli.running import backfill, demo, prepare, retrain, run_job, ui
from rnn_pipeline.cli.settings import show_settings
from rnn_pipeline.cli.trading import decisions, report, signals

__all__ = ["main", "prepare", "run_job"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="rnn-pipeline")
def main() -> None:
    """Daily trading research and live signals from recurrent networks."""


for command in (
    *(backfill, decisions, demo, doctor, lookahead, migrate, models, paper, promote, quarantine),
    *(rebuild, replay, report, retrain, rollback, show_settings, signals, tune, ui, upgrade),
):
    main.add_command(command)
