"""Code of plug-ins: the modules of their folder are theirs, and nobody else's."""

import pickle
import subprocess
import sys
import textwrap
import threading

import pytest
import torch

from defenses.utils.errors import UserError
from defenses.utils.namespaces import PREFIX
from defenses.utils.plugins import load_object, source_of


@pytest.fixture
def repo(tmp_path):
    """A function that writes a repository: files by name, with their text."""

    def write(folder, **files):
        for name, text in files.items():
            path = tmp_path / folder / (name.replace("__of__", "/") + ".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        return tmp_path / folder

    return write


def call(folder, name="go", file="net.py"):
    return load_object(f"{folder / file}:{name}")()


NET = """
from beside import K
def go():
    import beside
    from beside import K as late
    assert beside.K == K == late
    return K
"""


def test_two_folders_with_modules_of_one_name(repo):
    a, b = repo("a", net=NET, beside="K = 'a'"), repo("b", net=NET, beside="K = 'b'")
    go_a, go_b = load_object(f"{a}/net.py:go"), load_object(f"{b}/net.py:go")
    assert [go_a(), go_b(), go_a()] == ["a", "b", "a"]
    assert "beside" not in sys.modules
    assert not {str(a), str(b)} & set(sys.path)
    with pytest.raises(ModuleNotFoundError):
        __import__("beside")


def test_an_import_that_first_runs_in_a_function_or_a_thread(repo):
    text = "def go():\n    from late import K\n    return K\n"
    folders = [repo(name, net=text, late=f"K = '{name}'") for name in "abcdefgh"]
    functions, found = [load_object(f"{f}/net.py:go") for f in folders], {}
    threads = [threading.Thread(target=lambda i=i: found.update({i: functions[i]()})) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "".join(found[i] for i in range(8)) == "abcdefgh"


def test_a_module_named_like_an_installed_package_is_the_plug_ins(repo):
    files = dict.fromkeys(("datasets", "random", "bench", "timm"), "K = 'mine'")
    text = (
        "import bench, datasets, random, timm\ndef go():\n    return [m.K for m in (bench, datasets, random, timm)]\n"
    )
    assert call(repo("a", net=text, **files)) == ["mine"] * 4
    import random

    assert random.random() < 1
    assert "site-packages" in str(source_of("datasets").file)


def test_a_folder_without_init_has_no_name_that_is_installed(repo):
    folder = repo("a", net="import yaml_like, torch\ndef go():\n    return torch.zeros(1), yaml_like.x.K\n")
    repo("a", torch__of__weights="", yaml_like__of__x="K = 3")
    repo("a", net="import torch, yaml_like.x\ndef go():\n    return torch.zeros(1), yaml_like.x.K\n")
    assert call(folder) == (torch.zeros(1), 3)


def test_own_folders_called_as_ours(repo):
    net = """
    import defenses.mine
    import defenses.utils.errors
    from bench.attack_of_mine import K as b
    from defenses import Defense, load_model
    from defenses import mine as again, VALUE
    from defenses.core.defense import Classifier
    from defenses.utils.theirs import K as c
    import importlib
    def go():
        from defenses.mine import K
        assert importlib.import_module("defenses.mine").K == again.K == defenses.mine.K == K
        assert issubclass(Classifier, Defense) and defenses.utils.errors.UserError
        assert defenses.utils.theirs.K == c
        return K, b, c, VALUE
    """
    folder = repo("a", net=net, defenses__of____init__="VALUE = 4\nfrom .mine import K", defenses__of__mine="K = 1")
    repo("a", bench__of__attack_of_mine="K = 2", defenses__of__utils__of__theirs="K = 3")
    assert call(folder) == (1, 2, 3, 4)
    assert "defenses.mine" not in sys.modules
    repo("a", net="import defenses.nowhere\n")
    with pytest.raises(UserError, match=r"No module named 'defenses\.nowhere'"):
        call(folder)


def test_packages_relative_imports_and_names_by_text(repo):
    net = """
    import importlib, importlib.util, sys
    import lib.deep.leaf as leaf
    from lib import prep
    from lib.deep import *
    from . import other
    def go():
        assert importlib.import_module("lib.prep") is prep is sys.modules["lib.prep"]
        assert importlib.util.find_spec("lib.prep").origin.endswith("prep.py")
        assert importlib.util.find_spec("not_there") is None
        assert __import__("lib.prep").prep is prep
        assert importlib.import_module(".prep", "lib") is prep
        spec = importlib.util.spec_from_file_location("loose", other.__file__.replace("other", "apart"))
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        return leaf.K + prep.K + other.K + STAR + module.K
    """
    folder = repo(
        "a", net=net, lib__of____init__="", lib__of__prep="from .deep import leaf\nK = leaf.K", other="K = 10"
    )
    repo("a", lib__of__deep__of____init__="STAR = 100", lib__of__deep__of__leaf="from ...other import K")
    repo("a", apart="from other import K")
    assert call(folder) == 140


def test_python_s_own_uses_of_modules_go_on_working(repo):
    beside = """
    from __future__ import annotations
    import copy, dataclasses, inspect, io, pickle, typing
    import torch
    @dataclasses.dataclass
    class Config:
        k: int = 3
        more: typing.ClassVar[int] = 4
    class Base:
        def __init__(self):
            self.k = 1
    class Net(Base):
        def __init__(self):
            super().__init__()
    def check():
        assert typing.get_type_hints(Config)["k"] is int
        assert "self.k = 1" in inspect.getsource(Base)
        assert pickle.loads(pickle.dumps(Config(5))) == copy.deepcopy(Config(5)) == Config(5)
        assert __name__ != "__main__" and __file__.endswith("beside.py") and __spec__.origin == __file__
        old = b"cbeside\\nNet\\n."
        assert pickle.loads(old) is Net and pickle.Unpickler(io.BytesIO(old)).load() is Net
        file = io.BytesIO()
        torch.save({"net": Net()}, file)
        file.seek(0)
        assert torch.load(file, weights_only=False)["net"].k == 1
        return torch.jit.script(torch.nn.Linear(2, 2)) is not None
    """
    folder = repo("a", net="from beside import check as go", beside=beside)
    assert call(folder)
    with pytest.raises(ModuleNotFoundError):
        pickle.loads(b"cbeside\nNet\n.")


def test_a_checkpoint_of_a_whole_model_finds_its_class(repo, tmp_path):
    """As written by the repository's own script, where the class is `beside.Net`."""
    folder = repo("a", net="import torch\ndef go():\n    return torch.load(FILE, weights_only=False)\n")
    repo("a", beside="import torch\nclass Net(torch.nn.Linear):\n    pass\n")
    code = "import torch, beside; torch.save(beside.Net(2, 3), 'net.pt')"
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)
    (folder / "net.py").write_text((folder / "net.py").read_text().replace("FILE", repr(f"{folder}/net.pt")))
    assert type(call(folder)).__module__ == f"{load_object(f'{folder}/net.py:go').__module__.partition('.')[0]}.beside"


def test_a_path_of_the_plug_ins_own(repo):
    repo("lib_a", shared_helper="K = 'a'")
    repo("lib_b", shared_helper="K = 'b'")
    text = """
    import os, sys
    if os.path.join(os.path.dirname(__file__), "..", "lib_{x}") not in sys.path:
        sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib_{x}"))
    def go():
        from shared_helper import K
        sys.path = [*sys.path, os.path.join(os.path.dirname(__file__), "later")]
        from only_later import L
        return K + L
    """
    before = list(sys.path)
    folders = [repo(x, net=text.replace("{x}", x), later__of__only_later=f"L = '{x}'") for x in "ab"]
    assert [call(folder) for folder in folders] == ["aa", "bb"]
    assert sys.path == before


def test_files_that_change_are_loaded_anew_and_old_objects_stay_whole(repo):
    folder = repo("a", net=NET, beside="K = 1")
    first = load_object(f"{folder}/net.py:go")
    repo("a", beside="K = 2")
    assert load_object(f"{folder}/net.py:go")() == 2
    assert first() == 1


def test_names_of_files_that_no_import_could_write(repo):
    folder = repo("a", **{"my-net.v2": NET, "net": NET, "net__of____init__": "K = 0", "beside": "K = 5"})
    assert call(folder, file="my-net.v2.py") == call(folder) == 5


def test_a_module_in_the_current_folder(repo, monkeypatch):
    for name in "ab":
        folder = repo(
            name, beside=f"K = '{name}'", net=NET, pkg__of__net="from beside import K\ndef go():\n    return K"
        )
        monkeypatch.chdir(folder)
        assert load_object("net:go")() == load_object("pkg.net:go")() == name
        assert source_of("pkg.net").file == folder / "pkg/net.py"
    assert str(folder) not in sys.path
    assert "net" not in sys.modules


def test_a_missing_module_is_named_plainly(repo):
    folder = repo("a", net="import lib.nope", lib__of____init__="")
    with pytest.raises(UserError, match=r"No module named 'lib\.nope'") as caught:
        call(folder)
    assert PREFIX not in str(caught.value)
    assert (
        call(repo("b", net="try:\n    import nope\nexcept ImportError:\n    nope = 1\ndef go():\n    return nope\n"))
        == 1
    )


def test_a_suite_is_not_a_file_that_was_once_a_plug_in(repo):
    from bench.attacks.registry import find_attack

    folder = repo(
        "a", other="import own\ndef go():\n    return own.K\n", own="K = 1\ndef corner(view, x, y):\n    return x"
    )
    assert call(folder, file="other.py") == 1
    with pytest.raises(UserError, match='unknown attack "own:corner"'):
        find_attack("own:corner")
