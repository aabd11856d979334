"""What must not be in the source, whatever else changes."""

import ast
from pathlib import Path

import pytest

import rnn_pipeline

#: Reading what these wrote runs whatever code the file names.
UNPICKLING = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
SOURCES = sorted(Path(rnn_pipeline.__file__).parent.rglob("*.py"))


def unpickled(tree: ast.Module) -> set[str]:
    """Imports and calls by which a file could be unpickled."""
    found = set()
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                found |= {name.name for name in names if name.name.split(".")[0] in UNPICKLING}
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] in UNPICKLING:
                found.add(module)
            case ast.Attribute(attr="read_pickle"):
                found.add("read_pickle")
            case ast.Attribute(value=ast.Name(id="torch"), attr="load"):
                found.add("torch.load")
            case ast.keyword(arg="allow_pickle", value=value):
                if not (isinstance(value, ast.Constant) and value.value is False):
                    found.add("allow_pickle")
    return found


def test_nothing_is_unpickled():
    assert len(SOURCES) > 100
    found = {path.name: unpickled(ast.parse(path.read_text())) for path in SOURCES}
    assert {name: what for name, what in found.items() if what} == {}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import pickle as harmless", {"pickle"}),
        ("from joblib import load", {"joblib"}),
        ("pd.read_pickle(path)", {"read_pickle"}),
        ("torch.load(path)", {"torch.load"}),
        ("np.load(path, allow_pickle=True)", {"allow_pickle"}),
        ("np.load(path, allow_pickle=False)", set()),
        ("safetensors.torch.load_file(path)", set()),
    ],
)
def test_unpickling_is_seen(source, found):
    assert unpickled(ast.parse(source)) == found
