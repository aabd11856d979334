"""Runs whose process was killed: Dagster counts them as under way, with their slots in pools."""

import dagster as dg
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage


def killed_runs(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """Runs that count as under way and whose process is gone: killed, or the power failed.

    Process numbers mean something on one machine alone, and so does SQLite.
    """
    if not isinstance(instance.event_log_storage, SqliteEventLogStorage):
        return []
    under_way = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING])
    return [run for run in instance.get_runs(under_way) if not _lives(instance, run.run_id)]


def _lives(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether the process that executes a run is there; also where none has told its number."""
    import psutil

    told = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT).records
    for entry in (record.event_log_entry for record in reversed(told)):
        event = entry.dagster_event
        pid = event.engine_event_data.metadata.get("pid") if event is not None else None
        if pid is None:
            continue
        try:
            # A number is given again after a while: a younger process is another one.
            return psutil.Process(int(str(pid.value))).create_time() <= entry.timestamp
        except psutil.NoSuchProcess:
            return False
    return True


def close_killed_runs(instance: dg.DagsterInstance) -> list[str]:
    """End runs whose process is gone, and say which jobs they were of.

    Their slots in the pools would otherwise keep every later run waiting for ever.
    """
    killed = killed_runs(instance)
    for run in killed:
        instance.report_run_failed(run, "its process is gone: it was killed, or the power failed")
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
    return [run.job_name for run in killed]
