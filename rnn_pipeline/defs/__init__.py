"""Dagster: one thin file per wing. Asset bodies read, call the library, and write."""

import warnings

import dagster as dg

# Single-run backfills and mappings between partition dimensions are what this pipeline stands on;
# Dagster has called both, and links to the source, beta for years and would say so once per asset.
for _feature in (
    "backfill_policy",
    "MultiToSingleDimensionPartitionMapping",
    "[cC]ode_?[rR]eference",
):
    warnings.filterwarnings("ignore", message=f".*{_feature}.*", category=dg.BetaWarning)
