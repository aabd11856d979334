"""One typed, validated settings model, and the specifications the library functions take.

Values come, weakest first, from the defaults here, from ``rnn_pipeline.toml`` in the working
directory (or the file that ``RNN_PIPELINE_SETTINGS_FILE`` names), and from the environment:
``RNN_PIPELINE_SOURCE=yahoo``, nested keys with two underscores,
``RNN_PIPELINE_FOLDS__TRAIN_SIZE=500``. Every specification is frozen: it can be
hashed, compared, stored beside what it produced, and mixed into a Dagster run config.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

Grade = Literal["none", "weak", "moderate", "strong"]

_PREFIX = "RNN_PIPELINE_"


class SettingsError(ValueError):
    """A setting is unknown or out of range; the message names the key and the value."""


class Spec(BaseModel):
    """Base of all specifications: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FoldSpec(Spec):
    """Walk-forward folds, in sessions. The purge is the forecast horizon and is not set here."""

    mode: Literal["expanding", "rolling"] = Field(
        "rolling", description="expanding keeps the first training session, rolling drops old ones"
    )
    train_size: int = Field(1000, ge=20, description="sessions in the (first) training span")
    val_size: int = Field(125, ge=5, description="sessions for early stopping, after training")
    test_size: int = Field(250, ge=1, description="sessions forecast by one fold's networks")
    step: int | None = Field(
        None, ge=1, description="sessions between folds; empty means test_size, so none overlap"
    )

    holdout_from: date | None = Field(
        None,
        description="sessions from this day on belong to no fold and get no forecast; empty it to"
        " look at them, once",
    )

    @model_validator(mode="after")
    def _tested_once(self) -> FoldSpec:
        if self.step is not None and self.step < self.test_size:
            raise ValueError(
                f"step {self.step} is smaller than test_size {self.test_size}: sessions would be"
                " tested twice; raise step or lower test_size"
            )
        return self

    @property
    def stride(self) -> int:
        """Sessions from one fold's start to the next."""
        return self.step or self.test_size


class NetworkSpec(Spec):
    """A recurrent network: the cell, and one hidden size per layer (first layer first)."""

    cell: Literal["rnn", "lstm", "gru"] = "lstm"
    hidden_sizes: tuple[Annotated[int, Field(ge=1)], ...] = Field((32,), min_length=1)
    dropout: float = Field(0.0, ge=0.0, lt=1.0, description="between layers and before the head")
    quantiles: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        (), description="levels forecast beside the point, rising; empty: the point alone"
    )
    pooled: bool = Field(False, description="one network over all tickers, instead of one for each")
    ticker_embedding: int = Field(
        0, ge=0, description="numbers by which a pooled network tells tickers apart; 0: it does not"
    )

    @field_validator("quantiles")
    @classmethod
    def _rising(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if list(value) != sorted(set(value)):
            raise ValueError(f"quantiles {list(value)} must rise: sort them, drop repeats")
        return value

    @model_validator(mode="after")
    def _tickers_to_tell_apart(self) -> NetworkSpec:
        if self.ticker_embedding and not self.pooled:
            raise ValueError(
                f"ticker_embedding {self.ticker_embedding} is for pooled networks: set pooled, or"
                " ticker_embedding to 0"
            )
        return self


class TrainingSpec(Spec):
    """How one network learns: Adam, early stopping on the validation rows, clipped gradients."""

    epochs: int = Field(12, ge=1)
    batch_size: int = Field(128, ge=1)
    learning_rate: float = Field(3e-3, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    schedule: Literal["constant", "cosine"] = Field(
        "constant", description="of the learning rate after its warm-up"
    )
    warmup_epochs: float = Field(
        0.0, ge=0, description="over which the learning rate rises linearly from 0"
    )
    clip_norm: float | None = Field(
        1.0, gt=0, description="largest gradient norm of one step; empty: any"
    )
    input_noise: float = Field(
        0.0, ge=0, description="standard deviation of the noise added to scaled inputs in training"
    )
    patience: int | None = Field(
        4, ge=1, description="epochs without a better validation loss before stopping; empty: never"
    )

    @model_validator(mode="after")
    def _warm_in_time(self) -> TrainingSpec:
        if self.warmup_epochs > self.epochs:
            raise ValueError(
                f"warmup_epochs {self.warmup_epochs:g} is longer than the training's"
                f" {self.epochs} epochs: lower it"
            )
        return self


class TuningSpec(Spec):
    """What the search for better settings tries, and on what. Ranges include both ends."""

    n_trials: int = Field(20, ge=1, description="in all, those of earlier runs included")
    timeout: float | None = Field(
        None, gt=0, description="seconds after which a run begins no further trial; empty: none"
    )
    splits: int = Field(2, ge=1, description="inner folds, in order of time")
    val_share: float = Field(
        0.2, gt=0, lt=1, description="share of the training span that one of them validates on"
    )
    cells: tuple[Literal["rnn", "lstm", "gru"], ...] = Field(("lstm", "gru"), min_length=1)
    n_layers: tuple[PositiveInt, PositiveInt] = Field((1, 2), description="recurrent layers")
    hidden_size: tuple[PositiveInt, PositiveInt] = Field((8, 64), description="units of each layer")
    dropout: tuple[NonNegativeFloat, Annotated[float, Field(lt=1)]] = (0.0, 0.5)
    learning_rate: tuple[PositiveFloat, PositiveFloat] = (3e-4, 1e-2)
    lookback: tuple[Annotated[int, Field(ge=2)], PositiveInt] = Field(
        (5, 40), description="sessions in one input window"
    )
    seed: int = 0

    @field_validator("n_layers", "hidden_size", "dropout", "learning_rate", "lookback")
    @classmethod
    def _in_order(cls, span: tuple[float, float]) -> tuple[float, float]:
        if span[0] > span[1]:
            raise ValueError(f"the range {list(span)} is empty: give the smaller end first")
        return span


class SentimentSpec(Spec):
    """The sentiment model: networks that read headlines, beside a linear model of n-grams."""

    members: int = Field(3, ge=1, description="networks whose probabilities are averaged")
    embed_dim: int = Field(64, ge=1, description="length of the vectors of a word and its spelling")
    hidden_size: int = Field(64, ge=1, description="units of the LSTM in each direction")
    num_layers: int = Field(1, ge=1)
    spellings: int = Field(
        20_000, ge=2, description="buckets for the letter n-grams that words are spelt with"
    )
    dropout: float = Field(0.5, ge=0.0, lt=1.0, description="between layers and before the head")
    word_dropout: float = Field(
        0.2, ge=0.0, lt=1.0, description="share of words read as unknown in training"
    )
    embedding_dropout: float = Field(
        0.5, ge=0.0, lt=1.0, description="of a word's inputs, the same ones all along a headline"
    )
    label_smoothing: float = Field(0.1, ge=0.0, lt=1.0)
    max_vocab: int = Field(10_000, ge=3)
    min_freq: int = Field(2, ge=1)
    max_len: int = Field(40, ge=1, description="tokens kept of a headline")
    vectors: str | None = Field(
        None,
        description="pretrained word vectors: a GloVe or word2vec file, or glove-6b-50d for those"
        " of the extra [glove]",
    )
    least_steps: int = Field(
        500,
        ge=0,
        description="optimizer steps that a few hundred headlines get, too, by up to 40 epochs,"
        " where fit is not told how many",
    )
    frozen_epochs: int = Field(0, ge=0, description="in which pretrained vectors do not learn")
    val_share: float = Field(
        0.1, gt=0, lt=1, description="of the headlines, held out by each network; others by each"
    )
    seed: int = 0
    training: TrainingSpec = TrainingSpec(
        epochs=6,
        batch_size=64,
        learning_rate=2e-3,
        weight_decay=1e-5,
        schedule="cosine",
        warmup_epochs=1,
        patience=None,
    )


class ModelSettings(Spec):
    """What the forecasters see, how far they look, and how many times each is trained."""

    features: tuple[str, ...] = Field(
        (), description="columns of the model matrix; empty: the default set of features/model.py"
    )
    lookback: int = Field(20, ge=2, description="sessions in one input window")
    horizon: int = Field(1, ge=1, description="sessions ahead that are forecast")
    seeds: tuple[int, ...] = Field((0, 1), min_length=1)
    networks: dict[str, NetworkSpec] = {
        "lstm": NetworkSpec(cell="lstm", hidden_sizes=(32,)),
        "gru": NetworkSpec(cell="gru", hidden_sizes=(32,)),
        "stacked_lstm": NetworkSpec(cell="lstm", hidden_sizes=(32, 16), dropout=0.2),
    }
    training: TrainingSpec = TrainingSpec()
    warm_epochs: int | None = Field(
        None,
        ge=1,
        description="epochs of a fold that starts from the weights of the fold before it; empty:"
        " every fold starts afresh",
    )
    sentiment: SentimentSpec = Field(
        SentimentSpec(members=1), description="one network reads for the pipeline; more take longer"
    )


class BacktestSpec(Spec):
    """What trading costs and how many sessions make a year."""

    cost_bps: float = Field(5.0, ge=0, description="cost per traded weight, in basis points")
    sessions_per_year: int = Field(252, ge=1)


class TradingSpec(Spec):
    """From a signal to a position: thresholds and risk limits."""

    buy_above: float = Field(0.2, gt=0, le=1, description="a signal above this is BUY")
    sell_below: float = Field(-0.2, ge=-1, lt=0, description="a signal below this is SELL")
    long_only: bool = False
    target_volatility: float = Field(
        0.20, gt=0, description="annual volatility one ticker's position aims at"
    )
    max_weight: float = Field(0.25, gt=0, le=1, description="largest weight of one ticker")
    max_gross: float = Field(1.0, gt=0, description="largest sum of absolute weights")


class OperationsSpec(Spec):
    """When networks are trained again, and how long they are trusted and kept."""

    retrain: Literal["fold", "weekly", "manual"] = Field(
        "fold",
        description="fold: as soon as a fold begins, as the walk-forward graded it; weekly: where"
        " one has begun, in the first session of a week; manual: never by itself",
    )
    model_expiry: int | None = Field(
        None,
        ge=1,
        description="sessions after the end of their training from which networks count as having"
        " no evidence; empty: twice the sessions from one fold to the next",
    )
    keep_retired: int = Field(
        3, ge=1, description="former champions of each ticker and slot whose networks are kept"
    )


class ComputeSettings(Spec):
    """Where networks train, and what it may take."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    deterministic: bool = True
    backend: Literal["auto", "reference", "cpu", "processes", "gpu"] = Field(
        "auto", description="who trains forecasters; auto: the fastest on this machine"
    )
    memory_gb: float | None = Field(
        None,
        gt=0,
        description="what forecasters that train together may take; empty: 4 here, and on a GPU"
        " most of what is free",
    )
    tensorboard: bool = Field(
        False, description="write every forecaster's loss curves below data_dir for TensorBoard"
    )


class Settings(BaseSettings):
    """Everything a user may set. See the module's docstring for where values come from."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
    )

    source: Literal["sample", "yahoo", "files"] = Field(
        "sample",
        description="sample: embedded real bars, offline; yahoo: live data; files: a drop folder",
    )
    drop_dir: Path | None = Field(
        None, description="with source files: the folder whose CSV and Parquet files are taken in"
    )
    feeds: tuple[str, ...] = Field(
        (), description="RSS or Atom addresses asked for headlines; {ticker} stands for the ticker"
    )
    labels: Path | None = Field(
        None, description="labelled headlines to learn sentiment from, instead of the embedded ones"
    )
    tickers: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="the universe; empty means every ticker of the sample"
    )
    start: date | None = Field(
        None, description="first session wanted; empty: the sample's first, or five years back"
    )
    exchange: str = Field("XNYS", description="ISO market code of the exchange calendar")
    data_dir: Path = Field(Path("data"), description="warehouse, payloads, checkpoints, reports")
    partition_step: Literal["day", "week", "month"] = Field(
        "month", description="width of one partition on the date axis"
    )
    folds: FoldSpec = FoldSpec()
    model: ModelSettings = ModelSettings()
    backtest: BacktestSpec = BacktestSpec()
    trading: TradingSpec = TradingSpec()
    compute: ComputeSettings = ComputeSettings()
    operations: OperationsSpec = OperationsSpec()
    tuning: TuningSpec = TuningSpec()

    @model_validator(mode="after")
    def _folder_there(self) -> Settings:
        if self.source == "files" and (self.drop_dir is None or not self.drop_dir.is_dir()):
            raise ValueError(
                f"source files needs drop_dir to be a folder, it is {str(self.drop_dir)!r}:"
                " create it or set another"
            )
        return self

    @field_validator("tickers", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """Accept ``AAPL,MSFT`` as the environment gives it, and any order or repetition."""
        if isinstance(value, str):
            value = [part for part in (p.strip() for p in value.split(",")) if part]
        if isinstance(value, list | tuple):
            return tuple(dict.fromkeys(str(ticker).upper() for ticker in value))
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments win over the environment, the environment over the file."""
        file = os.environ.get(f"{_PREFIX}SETTINGS_FILE", "rnn_pipeline.toml")
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, Path(file))

    @cached_property
    def home(self) -> Path:
        """The folder of this source below ``data_dir``: sources never share a warehouse."""
        return self.data_dir.expanduser().resolve() / self.source

    @property
    def warehouse_path(self) -> Path:
        """The DuckDB file."""
        return self.home / "warehouse.duckdb"

    @property
    def payload_dir(self) -> Path:
        """Raw answers of the sources, addressed by their hash."""
        return self.home / "payloads"

    @property
    def matrix_dir(self) -> Path:
        """Exported model matrices, memory-mapped by training."""
        return self.home / "matrices"

    @property
    def checkpoint_dir(self) -> Path:
        """Trained networks."""
        return self.home / "checkpoints"

    @property
    def tuning_dir(self) -> Path:
        """The searches' trials, and what they found."""
        return self.home / "tuning"

    @property
    def tensorboard_dir(self) -> Path:
        """TensorBoard's event files."""
        return self.home / "tensorboard"

    @property
    def report_dir(self) -> Path:
        """HTML reports."""
        return self.home / "reports"

    @property
    def model_expiry(self) -> int:
        """Sessions after the end of their training from which networks are too old."""
        return self.operations.model_expiry or 2 * self.folds.stride

    @property
    def dagster_home(self) -> Path:
        """Dagster's instance folder: ``DAGSTER_HOME`` where it is set."""
        return Path(os.environ.get("DAGSTER_HOME") or self.home / "dagster")


def load_settings(**overrides: object) -> Settings:
    """Read the settings.

    Raises:
        SettingsError: one line per wrong key, with the key, the value and what is wrong with it.
    """
    for name in os.environ:
        key = name.removeprefix(_PREFIX).split("__")[0].lower()
        if name.startswith(_PREFIX) and key not in {*Settings.model_fields, "settings_file"}:
            near = difflib.get_close_matches(key, Settings.model_fields, n=1)
            hint = f"; did you mean {_PREFIX}{near[0].upper()}?" if near else ""
            raise SettingsError(f"environment variable {name}: no setting is named {key!r}{hint}")
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"the settings file is not TOML: {error}") from None
    except ValidationError as error:
        lines = [
            f"setting {'.'.join(str(part) for part in item['loc'])} = {item['input']!r}:"
            f" {item['msg']}"
            for item in error.errors()
        ]
        raise SettingsError("\n".join(lines)) from None
