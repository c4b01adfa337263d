"""What counts as another code of a plug-in, and what does not."""

import pytest

from defenses.utils.plugins import code_hash

FILES = {
    "net.py": '''"""A net."""
from functools import partial
import torch
from lib.prep import prep, unused_import
from dataclasses import dataclass

SCALE = 3


@dataclass
class Config:
    k: int = 1


class Base(torch.nn.Module):
    """Base."""

    def forward(self, x):
        # a comment
        return helper(prep(x))


class Net(Base):
    def forward(self, x):
        """Say something."""
        return super().forward(x) * SCALE


class Unused(Base):
    def forward(self, x):
        return other(x)


def helper(x):
    from lib import late
    return late.f(x)


def other(x):
    return x
''',
    "lib/__init__.py": "",
    "lib/prep.py": "from . import deep\ndef prep(x):\n    return deep.f(x)\ndef unused_import(x):\n    return x\n"
    "def apart(x):\n    return x\n",
    "lib/deep.py": "from ..root import f\n",
    "lib/late.py": "def f(x):\n    return x\n",
    "root.py": "def f(x):\n    return x\n",
    "not_imported.py": "K = 1\n",
}


@pytest.fixture
def change(tmp_path):
    """A function that changes a file and returns the hash of the code before and after."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)

    def changed(name, old, new, target="Net"):
        before, path = code_hash(f"{tmp_path}/net.py:{target}"), tmp_path / name
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))
        return before, code_hash(f"{tmp_path}/net.py:{target}")

    return changed


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("net.py", "# a comment", "# another one, at length"),
        ("net.py", '"""Say something."""', '"""Say more."""\n'),
        ("net.py", '"""A net."""', '"""The net."""\n\n# and\n'),
        ("net.py", '    """Base."""\n', ""),
        ("net.py", "SCALE = 3", "SCALE   =   3  # so"),
        ("net.py", "return other(x)", "return 2 * other(x)"),
        ("net.py", "class Unused(Base):\n    def forward(self, x):\n        return other(x)\n", ""),
        ("net.py", "def other(x):\n    return x", "def other(x):\n    return x + 1"),
        ("net.py", "def other(x)", "class New:\n    k = 3\n\ndef other(x)"),
        ("lib/prep.py", "def apart(x):\n    return x", "def apart(x):\n    return x + 1"),
        ("not_imported.py", "K = 1", "K = 2"),
    ],
)
def test_what_changes_nothing(change, name, old, new):
    before, after = change(name, old, new)
    assert before == after


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("net.py", "SCALE = 3", "SCALE = 4"),
        ("net.py", "helper(prep(x))", "helper(prep(x)) + 1"),
        ("net.py", "return late.f(x)", "return late.f(x) + 1"),
        ("net.py", "def other(x)", "torch.manual_seed(0)\n\ndef other(x)"),
        ("net.py", "class Unused(Base):", "@register\nclass Unused(Base):"),
        ("net.py", "class Unused(Base):", "class Unused(Base):\n    k = torch.randn(3)"),
        ("lib/prep.py", "return deep.f(x)", "return deep.f(x) + 1"),
        ("lib/__init__.py", "", "K = 1"),
        ("lib/late.py", "return x", "return 2 * x"),
        ("root.py", "return x", "return 2 * x"),
    ],
)
def test_what_is_another_code(change, name, old, new):
    before, after = change(name, old, new)
    assert before != after


@pytest.mark.parametrize(
    "dynamic",
    [
        *("globals()['Unused']", "getattr(lib, 'x')", "eval('Unused')", "importlib.import_module('lib.prep')"),
        *("sys.modules[__name__]", "Base.__subclasses__()", "torch.load(f, weights_only=False)", "lib.__dict__['x']"),
    ],
)
def test_where_code_reaches_what_it_does_not_name_the_whole_file_counts(change, dynamic):
    change("net.py", "helper(prep(x))", f"{dynamic}")
    before, after = change("net.py", "return other(x)", "return 2 * other(x)")
    assert before != after
    before, after = change("net.py", "# a comment", "# another one")
    assert before == after


def test_what_is_no_python_is_hashed_as_it_is(change):
    change("lib/late.py", "def f(x):", "def f(x:")
    before, after = change("lib/late.py", "return x", "return  x")
    assert before != after
