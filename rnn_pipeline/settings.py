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
import re
import sys
import tomllib
from datetime import date, time
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    SecretStr,
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

PREFIX = "RNN_PIPELINE_"
"""What the names of environment variables begin with."""

SECRETS = ("smtp_user", "smtp_password", "webhook_token", "lake_catalog")
"""What is read from the environment alone (RNN_PIPELINE_SMTP_USER, ...), and only to log in."""

SOURCES = ("sample", "yahoo", "files")
"""The sources that come with the package."""
POLICIES = ("evidence", "threshold", "stacking")
"""The policies that come with the package: functions of ``trading/policies.py``."""
_OWN = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


class SettingsError(ValueError):
    """A setting is unknown or out of range; the message names the key and the value."""


class OwnCodeError(ValueError):
    """Code of one's own that the settings name cannot be loaded."""


def is_own_code(text: str) -> bool:
    """Whether a setting names code of one's own, as ``module:name``."""
    return _OWN.fullmatch(text) is not None


def load_own_code(path: str) -> Any:
    """What ``module:name`` names, the module found in the working directory or where installed.

    Raises:
        OwnCodeError: there is no such module, it cannot be imported, or has nothing of that name.
    """
    module, _, name = path.partition(":")
    # An installed command does not look there by itself, unlike ``python -m``.
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise OwnCodeError(f"{path!r} cannot be loaded: {error}") from None


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

    cell: Literal["rnn", "lstm", "gru"] = Field("lstm", description="the recurrent unit")
    hidden_sizes: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (32,), min_length=1, description="units of each layer, first layer first"
    )
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

    epochs: int = Field(12, ge=1, description="passes over the training rows, at most")
    batch_size: int = Field(128, ge=1, description="windows or texts in one step")
    learning_rate: float = Field(3e-3, gt=0, description="of Adam")
    weight_decay: float = Field(1e-4, ge=0, description="pull of the weights towards zero")
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
    cells: tuple[Literal["rnn", "lstm", "gru"], ...] = Field(
        ("lstm", "gru"), min_length=1, description="recurrent units to try"
    )
    n_layers: tuple[PositiveInt, PositiveInt] = Field((1, 2), description="recurrent layers")
    hidden_size: tuple[PositiveInt, PositiveInt] = Field((8, 64), description="units of each layer")
    dropout: tuple[NonNegativeFloat, Annotated[float, Field(lt=1)]] = Field(
        (0.0, 0.5), description="between layers and before the head"
    )
    learning_rate: tuple[PositiveFloat, PositiveFloat] = Field(
        (3e-4, 1e-2), description="of Adam, tried on a logarithmic scale"
    )
    lookback: tuple[Annotated[int, Field(ge=2)], PositiveInt] = Field(
        (5, 40), description="sessions in one input window"
    )
    seed: int = Field(0, description="of the search")

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
    num_layers: int = Field(1, ge=1, description="layers of the LSTM")
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
    label_smoothing: float = Field(
        0.1, ge=0.0, lt=1.0, description="share of a label that is spread over all"
    )
    max_vocab: int = Field(10_000, ge=3, description="words known at most, the most frequent ones")
    min_freq: int = Field(2, ge=1, description="headlines that a word must stand in to be known")
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
    frozen_epochs: int = Field(1, ge=0, description="in which pretrained vectors do not learn")
    val_share: float = Field(
        0.1, gt=0, lt=1, description="of the headlines, held out by each network; others by each"
    )
    seed: int = Field(0, description="of the first network; the others follow")
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
    horizon: int | tuple[int, ...] = Field(
        1,
        description="sessions ahead that are forecast; a list, as [1, 5]: every network is trained"
        " for each of them, NAME for the shortest, NAME_h5 for five sessions",
    )
    seeds: tuple[int, ...] = Field(
        (0, 1), min_length=1, description="one network of each kind is trained for each"
    )
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

    @field_validator("horizon", mode="before")
    @classmethod
    def _shortest_first(cls, value: object) -> object:
        """One horizon is a number, however it was written: recipes are told apart by it."""
        several = value if isinstance(value, list | tuple) else str(value).split(",")
        written = [str(part).strip() for part in several]
        if not written or not all(re.fullmatch(r"[1-9]\d*", part) for part in written):
            raise ValueError("give a number of sessions from 1 on, or a list of them, as [1, 5]")
        horizons = sorted(set(map(int, written)))
        return tuple(horizons) if len(horizons) > 1 else horizons[0]

    @model_validator(mode="after")
    def _names_are_free(self) -> ModelSettings:
        named = [name for part in self.by_horizon() for name in part.networks]
        if twice := sorted({name for name in named if named.count(name) > 1}):
            raise ValueError(
                f"the network {twice[0]!r} has the name of one that horizon {list(self.horizons)}"
                " adds: call it something else"
            )
        return self

    @property
    def horizons(self) -> tuple[int, ...]:
        """Sessions ahead that are forecast, the shortest first."""
        return (self.horizon,) if isinstance(self.horizon, int) else self.horizon

    @property
    def base_horizon(self) -> int:
        """The shortest horizon: what all forecasts are brought to, and positions are sized by."""
        return self.horizons[0]

    def by_horizon(self) -> tuple[ModelSettings, ...]:
        """The same for each horizon alone, under the names that networks have there."""
        if len(self.horizons) == 1:
            return (self,)
        base, *further = self.horizons
        return (
            self.model_copy(update={"horizon": base}),
            *(
                self.model_copy(
                    update={
                        "horizon": horizon,
                        "networks": {
                            f"{name}_h{horizon}": network for name, network in self.networks.items()
                        },
                    }
                )
                for horizon in further
            ),
        )

    @property
    def slots(self) -> dict[str, NetworkSpec]:
        """Every network of every horizon by its name."""
        return {name: spec for part in self.by_horizon() for name, spec in part.networks.items()}


class BacktestSpec(Spec):
    """What trading costs and how many sessions make a year."""

    cost_bps: float = Field(5.0, ge=0, description="cost per traded weight, in basis points")
    sessions_per_year: int = Field(252, ge=1, description="what annual figures are scaled by")


class TradingSpec(Spec):
    """From forecasts to a signal, from a signal to a position, and from that to orders."""

    policy: str = Field(
        "evidence",
        description="how sources become one signal: evidence, by what they have shown; threshold,"
        " the tutorial's, of the expected return; stacking, by shares learned from earlier folds;"
        " module:function: your own, see trading/policies.py",
    )
    buy_above: float = Field(0.2, gt=0, le=1, description="a signal above this is BUY")
    sell_below: float = Field(-0.2, ge=-1, lt=0, description="a signal below this is SELL")
    buy_return: float = Field(
        0.005, gt=0, description="with policy threshold: an expected return above this is BUY"
    )
    sell_return: float = Field(
        -0.005, gt=-1, lt=0, description="with policy threshold: one below this is SELL"
    )
    stacking_penalty: float = Field(
        50.0,
        gt=0,
        description="with policy stacking: how many forecasts without an outcome weigh against the"
        " learned shares (ridge)",
    )
    min_agreement: float = Field(
        0.5,
        ge=0,
        le=1,
        description="prices have no say where a smaller share of the networks takes the side of"
        " their mean forecast",
    )
    max_dispersion: float | None = Field(
        None,
        gt=0,
        description="nor where the networks' standard deviation is more than this many times their"
        " mean forecast; empty: it may be any",
    )
    sizing: Literal["volatility", "kelly"] = Field(
        "volatility", description="aim at a volatility, or bet a fraction of Kelly's"
    )
    target_volatility: float = Field(
        0.20, gt=0, description="annual volatility one ticker's position aims at"
    )
    kelly_fraction: float = Field(
        0.25, gt=0, le=1, description="with sizing kelly: fraction of the bet that grows fastest"
    )
    long_only: bool = Field(False, description="never hold a short position")
    max_weight: float = Field(0.25, gt=0, le=1, description="largest weight of one ticker")
    max_volume_share: float | None = Field(
        0.05,
        gt=0,
        description="largest position, as a share of the ticker's median dollar volume over 20"
        " sessions; empty: any",
    )
    max_gross: float = Field(1.0, gt=0, description="largest sum of absolute weights")
    max_drawdown: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="loss of the account since its peak that sends it into cash; empty: none does",
    )
    stop_sessions: int = Field(
        20,
        ge=1,
        description="in cash after max_drawdown; then the peak is counted from what is left",
    )
    max_turnover: float | None = Field(
        None,
        gt=0,
        description="largest sum of traded weights of one session, but for trades that reduce a"
        " position; empty: any",
    )
    max_net: float | None = Field(
        None, gt=0, description="largest absolute sum of weights; empty: any"
    )
    account: float = Field(
        100_000.0, gt=0, description="what is traded with, in the currency of the bars"
    )
    lot: float = Field(1.0, gt=0, description="shares are ordered in multiples of this")
    min_order: float = Field(100.0, ge=0, description="orders worth less than this are left out")

    @field_validator("policy")
    @classmethod
    def _known_policy(cls, value: str) -> str:
        if value not in POLICIES and not is_own_code(value):
            raise ValueError(
                f"there is none of that name: use {', '.join(POLICIES)}, or module:function for"
                " your own"
            )
        return value


class PaperSpec(Spec):
    """The paper account: decisions traded on paper as bars arrive."""

    start: date | None = Field(
        None,
        description="simulate from this session on, every decision taken as made at its close;"
        " empty: live, from the newest session of the first run on",
    )
    cost_bps: float | None = Field(
        None, ge=0, description="cost per traded weight; empty: backtest.cost_bps"
    )
    slippage_bps: float = Field(
        2.0, ge=0, description="how much worse than the open a fill is, in basis points"
    )


class AlertSpec(Spec):
    """Who is told when something needs a person; the log is always told.

    User, password and token come from RNN_PIPELINE_SMTP_USER, RNN_PIPELINE_SMTP_PASSWORD and
    RNN_PIPELINE_WEBHOOK_TOKEN.
    """

    email_to: tuple[str, ...] = Field((), description="addresses; empty: no e-mail")
    email_from: str = Field("", description="sender; empty: the first address of email_to")
    smtp_host: str = Field("localhost", description="the mail server")
    smtp_port: int = Field(25, ge=1, le=65535, description="its port")
    smtp_starttls: bool = Field(False, description="encrypt, with a certificate that is checked")
    webhook: SecretStr | None = Field(
        None, description="address that alerts are posted to as JSON; empty: none"
    )
    hooks: tuple[str, ...] = Field(
        (), description="ways of your own, as module:function, see alerts.py; empty: none"
    )

    @field_validator("hooks")
    @classmethod
    def _own_code(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [path for path in value if not is_own_code(path)]:
            raise ValueError(f"{wrong[0]!r} is no function: write module:function")
        return value


class OperationsSpec(Spec):
    """When networks are trained again, and how long they are trusted and kept."""

    retrain: Literal["fold", "weekly", "manual"] = Field(
        "fold",
        description="fold: as soon as a fold begins, as the walk-forward graded it; weekly: where"
        " one has begun, in the first session of a week; manual: never by itself",
    )
    evening: time = Field(
        time(18),
        description="when the daily run starts on session days, by the exchange's clock; once the"
        " source has the day's bars",
    )
    morning: time = Field(
        time(7), description="when the checks run that page, likewise; before the open"
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

    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="where networks train; auto: a GPU where there is one"
    )
    precision: Literal["float32", "tf32", "bfloat16"] = Field(
        "float32", description="of products on a GPU"
    )
    deterministic: bool = Field(True, description="the same bits on the same device every time")
    backend: Literal["auto", "reference", "cpu", "processes", "gpu"] = Field(
        "auto", description="who trains forecasters; auto: the fastest on this machine"
    )
    memory_gb: float | None = Field(
        None,
        gt=0,
        description="what forecasters that train together may take; empty: 4 here, and on a GPU"
        " most of what is free",
    )
    ray: str | None = Field(
        None,
        description="train forecasters on the Ray cluster at this address; auto: on the one of this"
        " machine; empty: here",
    )
    ray_cpus: int = Field(
        1, ge=1, description="processors of a task on the cluster, which trains as many at once"
    )
    ray_gpus: float = Field(0.0, ge=0, description="GPUs of a task on the cluster, 0.5 for half")
    tensorboard: bool = Field(
        False, description="write every forecaster's loss curves below data_dir for TensorBoard"
    )


class WarehouseSpec(Spec):
    """Where tables lie: a file of this machine, or a lake that many hosts write.

    The address of the lake's catalog comes from RNN_PIPELINE_LAKE_CATALOG, the keys of the object
    store from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.
    """

    engine: Literal["file", "ducklake"] = Field(
        "file",
        description="one DuckDB file below data_dir, or DuckLake with its catalog in"
        " PostgreSQL, of the extra [lake]",
    )
    data_path: str = Field(
        "", description="with engine ducklake: s3://bucket/folder, or a folder that all hosts see"
    )
    endpoint: str = Field(
        "",
        pattern=r"^(https?://[^/]+)?$",
        description="of an S3-compatible store, http://host:port; empty: Amazon's",
    )

    @model_validator(mode="after")
    def _somewhere(self) -> WarehouseSpec:
        if self.engine == "ducklake" and not self.data_path:
            raise ValueError("engine ducklake needs data_path: set it to s3://bucket/folder")
        return self


class Settings(BaseSettings):
    """Everything a user may set. See the module's docstring for where values come from."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
    )

    source: str = Field(
        "sample",
        description="sample: embedded real bars, offline; yahoo: live data; files: a drop folder;"
        " module:Class: your own, see market/sources.py",
    )
    drop_dir: Path | None = Field(
        None, description="with source files: the folder whose CSV and Parquet files are taken in"
    )
    feeds: tuple[str, ...] = Field(
        (),
        description="RSS or Atom addresses asked for headlines; {ticker} stands for the ticker,"
        " a name in capitals for that environment variable",
    )
    labels: Path | None = Field(
        None, description="labelled headlines to learn sentiment from, instead of the embedded ones"
    )
    tickers: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="the universe; empty: every ticker of the sample, or of the files"
    )
    start: date | None = Field(
        None,
        description="first session wanted; empty: that of the sample or files, or five years back",
    )
    exchange: str = Field("XNYS", description="ISO market code of the exchange calendar")
    data_dir: Path = Field(Path("data"), description="warehouse, payloads, checkpoints, reports")
    partition_step: Literal["day", "week", "month"] = Field(
        "month", description="width of one partition on the date axis"
    )
    warehouse: WarehouseSpec = WarehouseSpec()
    folds: FoldSpec = FoldSpec()
    model: ModelSettings = ModelSettings()
    backtest: BacktestSpec = BacktestSpec()
    trading: TradingSpec = TradingSpec()
    paper: PaperSpec = PaperSpec()
    alerts: AlertSpec = AlertSpec()
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

    @field_validator("source")
    @classmethod
    def _known_source(cls, value: str) -> str:
        if value not in SOURCES and not is_own_code(value):
            raise ValueError(
                f"there is none of that name: use {', '.join(SOURCES)}, or module:Class for your"
                " own"
            )
        return value

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
        file = os.environ.get(f"{PREFIX}SETTINGS_FILE", "rnn_pipeline.toml")
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, Path(file))

    @cached_property
    def home(self) -> Path:
        """The folder of this source below ``data_dir``: sources never share a warehouse."""
        return self.data_dir.expanduser().resolve() / self.source.replace(":", ".")

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
    def report_path(self) -> Path:
        """The report that a person reads in the morning."""
        return self.report_dir / "walk_forward_report.html"

    @property
    def alert_memory(self) -> Path:
        """Who was told what on which day."""
        return self.home / "alerts.json"

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
        key = name.removeprefix(PREFIX).split("__")[0].lower()
        others = {"settings_file", *SECRETS}
        if name.startswith(PREFIX) and key not in {*Settings.model_fields, *others}:
            near = difflib.get_close_matches(key, Settings.model_fields, n=1)
            hint = f"; did you mean {PREFIX}{near[0].upper()}?" if near else ""
            raise SettingsError(f"environment variable {name}: no setting is named {key!r}{hint}")
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"the settings file is not TOML: {error}") from None
    except ValidationError as error:
        lines = [_complaint(item["loc"], item["input"], item["msg"]) for item in error.errors()]
        raise SettingsError("\n".join(lines)) from None


def _complaint(location: tuple[int | str, ...], value: object, message: str) -> str:
    """One line about a wrong key; what may be a secret is not shown."""
    if not location:  # about several keys at once; the value is then all settings
        return f"settings: {message}"
    if location[-1] in SECRETS:
        name = f"{PREFIX}{str(location[-1]).upper()}"
        return f"setting {'.'.join(map(str, location))}: secrets belong in the environment: {name}"
    shown = "(hidden)" if location[-1] == "webhook" else repr(value)
    return f"setting {'.'.join(map(str, location))} = {shown}: {message}"
