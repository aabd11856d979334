"""What assets work with: the warehouse, the market's sources, and the device networks train on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import dagster as dg

from rnn_pipeline.defs.partitions import SETTINGS
from rnn_pipeline.market.calendar import SessionCalendar
from rnn_pipeline.market.feeds import FeedSource
from rnn_pipeline.market.files import FileSource
from rnn_pipeline.market.sample import SampleSource
from rnn_pipeline.market.sources import BarSource, NewsSource, load_source
from rnn_pipeline.market.yahoo import YahooSource
from rnn_pipeline.warehouse import PayloadStore, Warehouse, open_warehouse

if TYPE_CHECKING:
    import torch

    from rnn_pipeline.networks.fleet import Compute

#: One run at a time writes the warehouse, and one trains on the device.
WAREHOUSE_POOL = "warehouse"
COMPUTE_POOL = "compute"


class WarehouseResource(dg.ConfigurableResource):
    """The warehouse and its payloads.

    Attributes:
        path: of a DuckDB file; empty: the warehouse that the settings choose.
        payload_dir: folder of the raw answers, which every host must see.
    """

    path: str = ""
    payload_dir: str

    @property
    def store(self) -> Warehouse:
        """Open nothing yet: a connection is held only while something is read or written."""
        return Warehouse(Path(self.path)) if self.path else open_warehouse(SETTINGS)

    @property
    def payloads(self) -> PayloadStore:
        """Raw answers, addressed by their hash."""
        return PayloadStore(Path(self.payload_dir))


class MarketResource(dg.ConfigurableResource):
    """Where bars and headlines come from, and the calendar of the exchange."""

    source: str
    exchange: str
    cache_dir: str
    drop_dir: str
    feeds: list[str]

    @property
    def feed(self) -> BarSource | FileSource:
        """The source of bars, and of headlines if it has any; all of them share one path."""
        match self.source:
            case "sample":
                return SampleSource()
            case "yahoo":
                return YahooSource(Path(self.cache_dir))
            case "files":
                return FileSource(Path(self.drop_dir))
            case own:
                return load_source(own)

    @property
    def sources(self) -> list[BarSource | NewsSource | FileSource]:
        """Everything that rows come from; the first one gives the bars."""
        return [self.feed, *([FeedSource(self.feeds)] if self.feeds else [])]

    @property
    def calendar(self) -> SessionCalendar:
        """Sessions and closes of the exchange."""
        return SessionCalendar(self.exchange)


class ComputeResource(dg.ConfigurableResource):
    """The device that networks train on: ``auto`` takes a GPU where there is one."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    deterministic: bool = True
    backend: Literal["auto", "reference", "cpu", "processes", "gpu"] = "auto"
    memory_gb: float | None = None
    ray: str | None = None
    ray_cpus: int = 1
    ray_gpus: float = 0.0
    tensorboard: bool = False

    def resolve(self) -> torch.device:
        """The torch device.

        Raises:
            ValueError: ``cuda`` was asked for and there is none.
        """
        from rnn_pipeline.networks.devices import resolve_device

        return resolve_device(self.device)

    @property
    def log_dir(self) -> Path | None:
        """Where TensorBoard's event files go; None: nobody asked for them."""
        return SETTINGS.tensorboard_dir if self.tensorboard else None

    def fleet(self) -> Compute:
        """How forecasters train.

        Raises:
            ValueError: see :meth:`resolve`.
        """
        from rnn_pipeline.networks.fleet import Compute

        cluster = None
        if self.ray:
            from rnn_pipeline.networks.cluster import Cluster

            cluster = Cluster(self.ray, self.ray_cpus, self.ray_gpus)
        return Compute(
            self.resolve(),
            self.backend,
            self.precision,
            self.deterministic,
            self.memory_gb,
            SETTINGS.checkpoint_dir / "backends.json",
            cluster,
        )


MARKET = MarketResource(
    source=SETTINGS.source,
    exchange=SETTINGS.exchange,
    cache_dir=str(SETTINGS.home / "cache"),
    drop_dir=str(SETTINGS.drop_dir or ""),
    feeds=list(SETTINGS.feeds),
)

WAREHOUSE = WarehouseResource(payload_dir=str(SETTINGS.payload_dir))

RESOURCES = {
    "warehouse": WAREHOUSE,
    "market": MARKET,
    "compute": ComputeResource(**SETTINGS.compute.model_dump()),
}
