"""The event log's batches leave what one event after the other does, the newest partition last."""

import dagster as dg
import pytest

from rnn_pipeline.defs import event_log

KEYS = [f"2024-01-{day:02d}" for day in range(1, 21)]
DAYS = dg.StaticPartitionsDefinition(KEYS)


@dg.asset(partitions_def=DAYS)
def prices(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    """Twenty partitions in one run."""
    context.add_asset_metadata({"picture": "large"}, partition_key=KEYS[-1])
    return dg.MaterializeResult(metadata={"rows": 7}, tags={"kind": "test"})


def told(home, monkeypatch, batch):
    """What an instance says of a run over all partitions."""
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", batch)
    overrides = {
        "event_log_storage": {
            "module": "rnn_pipeline.defs.event_log",
            "class": "PooledSqliteEventLogStorage",
            "config": {"base_dir": str(home)},
        }
    }
    with dg.instance_for_test(overrides=overrides, temp_dir=str(home)) as instance:
        ranged = {
            "dagster/asset_partition_range_start": KEYS[0],
            "dagster/asset_partition_range_end": KEYS[-1],
        }
        result = dg.materialize([prices], instance=instance, tags=ranged)
        assert result.success
        key = dg.AssetKey("prices")
        records = instance.fetch_materializations(key, limit=100, ascending=True).records
        newest = instance.get_latest_materialization_event(key)
        in_run = instance.all_logs(result.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
        planned = dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED
        return {
            "partitions": instance.get_materialized_partitions(key),
            "records": [
                (row.partition_key, sorted(row.asset_materialization.metadata)) for row in records
            ],
            "ids": [row.storage_id - records[0].storage_id for row in records],
            "newest": newest.asset_materialization.partition,
            "in_run": [event.asset_materialization.partition for event in in_run],
            "planned": len(instance.all_logs(result.run_id, of_type=planned)),
            "tags": [
                dict(tags)
                for tags in instance.get_event_tags_for_asset(key, filter_tags={"kind": "test"})
            ],
        }


@pytest.mark.parametrize("batch", ["7", "1000"])
def test_batches_of_events_leave_what_single_events_leave(tmp_path, monkeypatch, batch):
    for name in ("single", "batch"):
        (tmp_path / name).mkdir()
    single = told(tmp_path / "single", monkeypatch, "0")
    batched = told(tmp_path / "batch", monkeypatch, batch)
    made = [key for key, _ in single["records"]]
    monkeypatch.setattr(event_log, "BATCH", int(batch))
    assert batched["newest"] == batched["in_run"][-1] == event_log.last_written(made)
    if int(batch) >= len(KEYS):
        assert batched["newest"] == KEYS[-1]
    for answer in (single, batched):
        answer["records"], answer["in_run"] = sorted(answer["records"]), sorted(answer["in_run"])
        del answer["newest"]
    assert single == batched
    assert single["partitions"] == set(KEYS)
    assert single["planned"] == len(KEYS)
