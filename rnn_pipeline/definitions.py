"""The code location: loads ``defs/``, nothing else."""

import dagster as dg

import rnn_pipeline.defs
from rnn_pipeline.defs import automation
from rnn_pipeline.defs.columns import with_columns
from rnn_pipeline.defs.guidance import with_source
from rnn_pipeline.defs.health import with_freshness
from rnn_pipeline.defs.resources import RESOURCES
from rnn_pipeline.defs.terminal import terminal

defs = dg.Definitions(
    assets=[
        with_source(asset).map_asset_specs(with_freshness).map_asset_specs(with_columns)
        for asset in dg.load_assets_from_package_module(rnn_pipeline.defs)
        if isinstance(asset, dg.AssetsDefinition)
    ],
    asset_checks=dg.load_asset_checks_from_package_module(rnn_pipeline.defs),
    jobs=automation.JOBS,
    schedules=automation.SCHEDULES,
    sensors=[
        *(automation.universe, automation.new_raw_data, automation.drop_folder),
        *(automation.run_failed, automation.checks_failed),
    ],
    resources=RESOURCES,
    # One process per run: a spawned step costs seconds, and the work itself is set-based.
    executor=dg.in_process_executor,
    loggers={"terminal": terminal, "console": dg.colored_console_logger},
)
