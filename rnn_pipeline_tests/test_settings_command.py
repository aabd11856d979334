"""The table of settings, and the command that shows them."""

import json
from pathlib import Path

from click.testing import CliRunner

from rnn_pipeline.cli import main
from rnn_pipeline.cli.settings import described, reference
from rnn_pipeline.settings import load_settings

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"


def run(*options):
    return CliRunner().invoke(main, ["settings", *options], catch_exceptions=False)


def test_every_setting_says_what_it_means():
    assert [key for key, _, meaning in described() if not meaning] == []


def test_the_page_has_the_table_of_this_version():
    assert PAGE.read_text().endswith("\n\n" + reference())
    assert run("--reference").stdout == reference()


def test_defaults_of_a_part_are_those_that_the_whole_gives_it():
    defaults = {key: default for key, default, _ in described()}
    assert defaults["model.training.epochs"] == 12
    assert defaults["model.sentiment.training.epochs"] == 6
    assert defaults["model.sentiment.members"] == 1
    assert defaults["model.networks.<name>.cell"] == "lstm"


def test_every_value_that_is_set_is_in_the_table():
    def leaves(value, prefix=""):
        for name, part in value.items():
            if isinstance(part, dict):
                yield from leaves(part, f"{prefix}{name}.")
            else:
                yield f"{prefix}{name}"

    networks = load_settings().model.networks
    wanted = set()
    for key in leaves(load_settings().model_dump(mode="json")):
        for name in networks:
            key = key.replace(f"networks.{name}.", "networks.<name>.")
        wanted.add(key)
    assert wanted == {key for key, _, _ in described()}


def test_what_is_not_the_default_is_marked(monkeypatch):
    monkeypatch.setenv("RNN_PIPELINE_FOLDS__TEST_SIZE", "60")
    monkeypatch.setenv("RNN_PIPELINE_ALERTS__WEBHOOK", "https://example.org/s3cret")
    lines = run().stdout.splitlines()
    assert "folds.test_size = 60  # not the default, 250" in lines
    assert "backtest.cost_bps = 5.0" in lines
    assert "model.networks.gru.hidden_sizes = [4]" in lines
    assert "s3cret" not in run().stdout + run("--json").stdout
    assert json.loads(run("--json").stdout)["folds"]["test_size"] == 60
