"""What ``from rnn_pipeline import ...`` gives, and what it costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import rnn_pipeline


@pytest.mark.parametrize("name", rnn_pipeline.__all__)
def test_an_exported_name_is_the_class_or_function_of_that_name(name: str) -> None:
    exported = getattr(rnn_pipeline, name)
    assert exported.__name__ == name
    assert exported.__module__ == f"rnn_pipeline.{rnn_pipeline._HOMES[name]}"
    assert name in dir(rnn_pipeline)


def test_type_checkers_see_the_same_names_from_the_same_modules() -> None:
    tree = ast.parse(Path(rnn_pipeline.__file__).read_text())
    seen = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module.startswith("rnn_pipeline.")
        for alias in node.names
    }
    assert seen == {name: f"rnn_pipeline.{home}" for name, home in rnn_pipeline._HOMES.items()}
    assert sorted(seen) == sorted(rnn_pipeline.__all__)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'rnn_pipeline' has no attribute 'Transformer'"):
        _ = rnn_pipeline.Transformer
    with pytest.raises(ImportError, match="Transformer"):
        from rnn_pipeline import Transformer  # noqa: F401


def test_torch_waits_until_a_network_is_asked_for() -> None:
    script = (
        "import sys, rnn_pipeline\n"
        "heavy = {'torch', 'pandas', 'numpy', 'dagster'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "from rnn_pipeline import LSTMNet\n"
        "assert 'torch' in sys.modules\n"
        "assert 'pandas' not in sys.modules, 'a network alone needs torch alone'\n"
        "assert 'dagster' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_features_folds_evidence_and_the_warehouse_need_neither_torch_nor_dagster() -> None:
    script = (
        "import sys, rnn_pipeline\n"
        "for name, home in rnn_pipeline._HOMES.items():\n"
        "    if not home.startswith('networks.'):\n"
        "        getattr(rnn_pipeline, name)\n"
        "heavy = {'torch', 'dagster', 'great_expectations', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
