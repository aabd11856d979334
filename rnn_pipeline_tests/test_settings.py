from pathlib import Path

import pytest

from rnn_pipeline.settings import FoldSpec, SettingsError, load_settings


@pytest.fixture
def settings_file(tmp_path, monkeypatch):
    path = tmp_path / "rnn_pipeline.toml"
    monkeypatch.setenv("RNN_PIPELINE_SETTINGS_FILE", str(path))
    return path


def test_arguments_win_over_environment_and_environment_over_file(settings_file, monkeypatch):
    settings_file.write_text('exchange = "XLON"\ntickers = ["AAA"]\n[folds]\ntrain_size = 400\n')
    assert load_settings().exchange == "XLON"
    monkeypatch.setenv("RNN_PIPELINE_EXCHANGE", "XTKS")
    monkeypatch.setenv("RNN_PIPELINE_FOLDS__TRAIN_SIZE", "500")
    settings = load_settings()
    assert (settings.exchange, settings.tickers, settings.folds.train_size) == (
        "XTKS",
        ("AAA",),
        500,
    )
    assert load_settings(exchange="XNYS").exchange == "XNYS"


def test_tickers_from_the_environment_are_split_capitalised_and_unique(settings_file, monkeypatch):
    monkeypatch.setenv("RNN_PIPELINE_TICKERS", "aapl, MSFT,AAPL,")
    assert load_settings().tickers == ("AAPL", "MSFT")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('source = "bloomberg"', "setting source = 'bloomberg'"),
        ("[folds]\ntrain_size = 3", "setting folds.train_size = 3"),
        ("[folds]\nstep = 10", "step 10 is smaller than test_size 250"),
        ("[training]\nepochs = 3", "setting training = "),
        ("[model]\nhorizon = [1, 0]", "setting model.horizon = [1, 0]: Value error, give a number"),
        ("[model]\nhorizon = []", "setting model.horizon = []"),
        ("[model.networks.a]\n[model.networks.a_h5]\n[model]\nhorizon = [5, 1]", "'a_h5' has the"),
        ('[trading]\npolicy = "hunch"', "setting trading.policy = 'hunch'"),
        ("[trading]\nmax_drawdown = 1.5", "setting trading.max_drawdown = 1.5"),
        ("[trading]\naccount = 0", "setting trading.account = 0"),
        ("source = ", "not TOML"),
    ],
)
def test_a_wrong_file_is_named_by_key_and_value(settings_file, text, message):
    settings_file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("written", "horizon"),
    [("1", 1), ("[5]", 5), ("[5, 1, 5]", (1, 5)), ('"1, 5"', (1, 5))],
    ids=["one", "a list of one", "several", "as the environment has it"],
)
def test_horizons_are_a_number_or_a_list(settings_file, written, horizon):
    settings_file.write_text(f"[model]\nhorizon = {written}\n[model.networks.a]\n")
    assert load_settings().model.horizon == horizon


def test_every_horizon_has_networks_of_its_own_and_the_shortest_keeps_the_names():
    model = load_settings(model={"horizon": [5, 1, 20]}).model
    assert [part.base_horizon for part in model.by_horizon()] == [1, 5, 20]
    names = [set(part.networks) for part in model.by_horizon()]
    assert {f"{name}_h5" for name in names[0]} == names[1]
    assert names[0] == set(load_settings().model.networks)
    assert set(model.slots) == set.union(*names)
    # What one horizon alone asks for is the same, whatever else is asked for.
    alone = model.model_copy(update={"horizon": 1})
    assert model.by_horizon()[0] == alone
    assert alone.by_horizon() == (alone,)


def test_a_misspelt_environment_variable_is_not_silently_ignored(settings_file, monkeypatch):
    monkeypatch.setenv("RNN_PIPELINE_TIKERS", "AAPL")
    with pytest.raises(SettingsError, match="did you mean RNN_PIPELINE_TICKERS"):
        load_settings()


def test_sources_never_share_a_warehouse(tmp_path):
    sample = load_settings(data_dir=tmp_path, source="sample")
    yahoo = load_settings(data_dir=tmp_path, source="yahoo")
    assert sample.warehouse_path != yahoo.warehouse_path
    assert yahoo.warehouse_path == Path(tmp_path).resolve() / "yahoo" / "warehouse.duckdb"


def test_folds_advance_by_their_test_span_unless_told_otherwise():
    assert FoldSpec(test_size=10).stride == 10
    assert FoldSpec(test_size=10, step=15).stride == 15
