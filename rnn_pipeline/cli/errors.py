"""How a command fails: on one line with exit code 1 for what a user can mend."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from rnn_pipeline.settings import SettingsError


class RunFailed(RuntimeError):
    """A Dagster run failed; the message is the cause's own line."""


@contextmanager
def plain_errors() -> Iterator[None]:
    """End on one line and exit code 1 for what a user can mend; anything else keeps its trace."""
    try:
        yield
    except (SettingsError, RunFailed) as error:
        raise click.ClickException(str(error)) from None
    except Exception as error:
        from rnn_pipeline.market.commit import IngestError
        from rnn_pipeline.market.quarantine import NotReleasable
        from rnn_pipeline.warehouse import WarehouseError

        if isinstance(error, WarehouseError | IngestError | NotReleasable):
            raise click.ClickException(str(error)) from None
        raise
