"""The code location: loads ``defs/``, nothing else."""

import dagster as dg

import rnn_pipeline.defs
from rnn_pipeline.defs import automation
from rnn_pipeline.defs.resources import RESOURCES
from rnn_pipeline.defs.terminal import terminal

defs = dg.Definitions(
    assets=dg.load_assets_from_package_module(rnn_pipeline.defs),
    asset_checks=dg.load_asset_checks_from_package_module(rnn_pipeline.defs),
    jobs=automation.JOBS,
    schedules=[automation.after_the_close],
    sensors=[automation.universe, automation.new_raw_data, automation.drop_folder],
    resources=RESOURCES,
    # One process per run: a spawned step costs seconds, and the work itself is set-based.
    executor=dg.in_process_executor,
    loggers={"terminal": terminal, "console": dg.colored_console_logger},
)
