"""What a run started from the command line shows: when an asset starts and is done."""

import logging
import sys
import time

import dagster as dg

_STARTED = "STEP_START"
_DONE = {"STEP_SUCCESS": "done", "STEP_FAILURE": "failed", "STEP_SKIPPED": "skipped"}


class _StepLines(logging.Handler):
    """Two lines per asset instead of Dagster's two per partition."""

    def __init__(self) -> None:
        super().__init__()
        self._since: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        meta = getattr(record, "dagster_meta", {})
        event, step = meta.get("dagster_event"), str(meta.get("step_key"))
        if event is None:
            if record.levelno >= logging.INFO:
                self._write(f"    {meta.get('orig_message') or record.getMessage()}")
        elif event.event_type_value == _STARTED:
            self._since[step] = time.monotonic()
            self._write(f"  {step} …")
        elif event.event_type_value in _DONE:
            seconds = time.monotonic() - self._since.pop(step, time.monotonic())
            self._write(f"  {step} {_DONE[event.event_type_value]} in {seconds:.1f} s")

    def _write(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)


@dg.logger(
    {}, description="One line when an asset starts and one when it is done, with its progress."
)
def terminal(_context: dg.InitLoggerContext) -> logging.Logger:
    """The logger of runs that a person watches on a terminal."""
    logger = logging.Logger("terminal", level=logging.DEBUG)
    lines = _StepLines()
    logger.addHandler(lines)
    # What networks say outside of a run's own log: that a kernel is being compiled, for one.
    library = logging.getLogger("rnn_pipeline.networks")
    library.setLevel(logging.INFO)
    library.handlers = [lines]
    return logger
