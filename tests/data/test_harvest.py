from __future__ import annotations

import sys

import pytest

from codeact.data import harvest_functions, load_examples
from codeact.errors import InputError

MODULE = '''"""Module text is no task."""
raise RuntimeError("reading must not import")

@wraps(print)
def double(
    x: int,  # doubled
    *,
    times="#",
) -> int:
    """Return twice the number that comes in, always.TRAILING

    Parameters
    ----------
    x : the number


    >>> double(2)
    4

    Whatever the type.

    Examples
    --------
    >>> double(3)
    6

    Returns
    -------
    never seen
    """

    # why
    return x + x

def twin(x):
    """The same output text can be described in two different ways."""
    y = x
    return y

def _private(x):
    """A private helper whose prose would be long enough to keep."""
    y = x
    return y

def test_something(x):
    """A test function whose prose would be long enough to keep."""
    y = x
    return y

def brief(x):
    """Too short."""
    y = x
    return y

def alias(x):
    """One line of body makes no task, whatever the prose says."""
    return x

def silent(x):
    y = x
    return y

def inline(x): """A docstring on the line of the def, long enough to keep."""; y = x; return y

def joined(x):
    """Code behind the closing quotes of a docstring, long enough."""; y = x
    z = y
    return z

class Class:
    def method(self):
        """A method whose prose would be long enough to keep it."""
        y = self
        return y
'''
TWIN = '''def twin(x):
    """Another prose in front of the very same code as elsewhere."""
    y = x
    return y

def redefined(x):
    """The first of two definitions with one name, which is lost."""
    y = x + 1
    return y

async def redefined(x):
    """The second of two definitions with one name, which counts."""
    y = x + 2
    return y
'''


@pytest.fixture
def package(tmp_path, monkeypatch):
    root = tmp_path / "harvested"
    (root / "tests").mkdir(parents=True)
    (root / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (root / "a.py").write_text(MODULE.replace("TRAILING", "  "))
    (root / "b.py").write_text(TWIN)
    (root / "broken.py").write_text("def f(:\n")
    (root / "latin.py").write_bytes(b"def f():\n    '\xe9'\n")
    (root / "test_c.py").write_text(TWIN.replace("twin", "elsewhere"))
    (root / "tests" / "d.py").write_text(TWIN.replace("twin", "elsewhere"))
    monkeypatch.syspath_prepend(tmp_path)
    return "harvested"


def test_rule(package):
    examples = harvest_functions([package])
    assert sorted(examples.ids) == [
        "harvested/a.py:double",
        "harvested/a.py:twin",
        "harvested/b.py:redefined",
    ]
    pairs = {example.fields["function"]: example for example in examples}
    assert pairs["double"].instruction == (
        'Write a Python function `double(x: int, *, times="#") -> int`.\n\n'
        "Return twice the number that comes in, always.\n\n"
        "Parameters\n----------\nx : the number\n\n"
        "Whatever the type."
    )
    assert pairs["double"].response == (
        '@wraps(print)\ndef double(\n    x: int,  # doubled\n    *,\n    times="#",\n) -> int:\n'
        "    # why\n    return x + x\n"
    )
    assert pairs["redefined"].response == "async def redefined(x):\n    y = x + 2\n    return y\n"
    assert pairs["twin"].fields == {
        "instruction": pairs["twin"].instruction,
        "output": "def twin(x):\n    y = x\n    return y\n",
        "function": "twin",
        "source": "pypi:harvested",
        "path": "harvested/a.py",
        "version": "unknown",
        "license": "unknown",
    }
    assert package not in sys.modules


def test_outputs_are_valid_python(package):
    for example in harvest_functions([package]):
        compile(example.response, example.id, "exec")


def test_order_follows_the_seed_and_limit_is_a_beginning(package):
    whole = harvest_functions([package], seed=1).ids
    assert harvest_functions([package], seed=1).ids == whole
    assert harvest_functions([package], seed=1, limit=2).ids == whole[:2]
    orders = {harvest_functions([package], seed=seed).ids for seed in range(4)}
    assert len(orders) > 1
    assert harvest_functions([package, package], limit=99, seed=1).ids == whole


def test_progress_counts_files(package):
    seen = []
    harvest_functions([package], on_progress=lambda *report: seen.append(report))
    assert seen == [(done, 5) for done in range(1, 6)]


def test_round_trip_through_a_file(package, tmp_path):
    examples = harvest_functions([package])
    examples.write_jsonl(tmp_path / "h.jsonl")
    assert load_examples(tmp_path / "h.jsonl").content_hash() == examples.content_hash()


@pytest.mark.parametrize("name", ["no_such_package", "a.b", "", "abc"])
def test_not_a_package(name):
    with pytest.raises(InputError, match=f"packages: '{name}' is not an installed package"):
        harvest_functions([name])


def test_nothing_to_harvest(package, tmp_path):
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "__init__.py").write_text("x = 1\n")
    with pytest.raises(InputError, match="no documented function found in bare"):
        harvest_functions(["bare"])
    with pytest.raises(InputError, match="limit must be at least 1, got 0"):
        harvest_functions([package], limit=0)


def test_reproduces_the_reference_rows(data_folder):
    """All outputs, and all instructions but one whose header there keeps a comment."""
    metadata = pytest.importorskip("importlib.metadata")
    networkx = pytest.importorskip("networkx")
    if networkx.__version__ != "3.6.1":
        pytest.skip(f"the reference rows are of networkx 3.6.1, here is {networkx.__version__}")
    rows = {
        (example.fields["path"], example.fields["function"]): example
        for example in load_examples(data_folder / "sft" / "oss_docstring_python.jsonl.gz")
        if example.fields["source"] == "pypi:networkx"
    }
    harvested = harvest_functions(["networkx"])
    assert harvested[0].fields["version"] == metadata.version("networkx")
    assert harvested[0].fields["license"] == "BSD-3-Clause"
    found = {(example.fields["path"], example.fields["function"]): example for example in harvested}
    assert found.keys() == rows.keys()
    assert all(found[key].response == rows[key].response for key in rows)
    different = [key for key in rows if found[key].instruction != rows[key].instruction]
    assert different == [("networkx/drawing/layout.py", "circular_layout")]
