"""The doctor finds every trap in folders that have it, and none in the project's own environment."""

import json
import tomllib
from pathlib import Path

import pytest
from boards import ROOT, purebench_here
from doctor_site import Site

import bench.doctor.examine
from bench.doctor.examine import CHECKS, Environment, examine, files, modules, require, versions
from bench.doctor.imports import imports
from defenses.utils.errors import UserError

FRA31 = """
class AutoAttack():
    def __init__(self, model, norm='Linf', eps=.3, seed=None, verbose=True, attacks_to_run=[], version='standard',
                 is_tf_model=False, device='cuda', log_path=None):
        pass
    def run_standard_evaluation(self, x_orig, y_orig, bs=250, return_labels=False, state_path=None):
        pass
"""


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path / "site-packages")


def test_the_project_is_well():
    found = examine(Environment.here())
    assert {f.check: f.evidence for f in found if f.status != "ok" and f.check != "gpu"} == {}
    assert len(found) >= len(CHECKS)


def test_nothing_is_imported_and_it_is_quick():
    import subprocess
    import sys
    import time

    code = (
        "import sys; from bench.cli.main import main; main(['doctor', '--json']); "
        "print({'torch', 'numpy'} & set(sys.modules))"
    )
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "set()", done.stderr
    assert time.perf_counter() - begin < 20  # .7 s where nothing else runs


def test_the_overrides_are_those_of_the_project():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert list(versions.OVERRIDES) == settings["tool"]["uv"]["override-dependencies"]
    assert settings["project"]["requires-python"] == ">=" + ".".join(map(str, versions.OLDEST_PYTHON))
    assert f"setuptools{modules._SETUPTOOLS}" in settings["project"]["dependencies"]


def test_shadowed_files(site):
    site.install("robustbench", "1.1.1", {"robustbench/eval.py": "new", "robustbench/utils.py": "same"})
    assert site.one(files.complete, libraries=("robustbench",)).status == "ok"
    site.install("torchattacks", "3.5.1", {"torchattacks/a.py": "a", "robustbench/eval.py": "old"})
    found = site.one(files.complete, libraries=("robustbench",))
    assert (found.status, found.concerns) == ("broken", ("robustbench",))
    assert "1 of 2 files differ" in found.evidence
    assert "torchattacks put its old copy over it" in found.breaks
    assert found.remedy == "uv sync --reinstall-package robustbench"


def test_damaged_and_missing_libraries(site):
    site.install("foolbox", "3.3.4", {"foolbox/a.py": "a", "foolbox/b.py": "b"})
    (site.folder / "foolbox" / "a.py").unlink()
    found = site.one(files.complete, libraries=("foolbox",))
    assert (found.status, "a.py (missing)" in found.evidence) == ("broken", True)
    assert found.remedy == "uv sync --reinstall-package foolbox"
    gone = site.one(files.complete, libraries=("torchattacks",))
    assert (gone.status, gone.evidence) == ("broken", "torchattacks is not installed")


def test_the_module_autoattack(site):
    def told():
        finding = site.one(modules.autoattack)
        return finding.status, finding.evidence, finding.concerns

    status, evidence, concerns = told()
    assert (status, concerns) == ("broken", ("autoattack", "robustbench"))
    assert "neither" in evidence
    site.install("pyautoattack", "0.2.0", {"pyautoattack/__init__.py": ""})
    status, evidence, concerns = told()
    assert (status, concerns) == ("broken", ("robustbench",))
    assert "no module autoattack" in evidence
    assert site.one(modules.autoattack).remedy == "uv sync --reinstall-package purebench"
    site.install("purebench", "0.1.0", {"defenses/__init__.py": "", "defenses/utils/autoattack/__init__.py": ""})
    own = site.folder / "defenses" / "utils" / "autoattack"
    assert told()[:2] == ("broken", f"{own} has no class AutoAttack")
    (own / "autoattack.py").write_text(FRA31)
    assert told()[:2] == ("broken", f"{own} has no module autoattack.state")
    assert site.one(modules.autoattack).remedy == "uv sync --reinstall-package purebench"
    (own / "state.py").touch()
    assert told()[:2] == ("ok", "the module autoattack is that of purebench, over pyautoattack 0.2.0")


def test_an_installed_module_autoattack_goes_before_purebenchs(site):
    site.install("pyautoattack", "0.2.0", {"pyautoattack/__init__.py": ""})
    site.install("purebench", "0.1.0", {"defenses/__init__.py": "", "defenses/utils/autoattack/autoattack.py": FRA31})
    site.install("other", "0.1.0", {"autoattack/__init__.py": "class AutoAttack:\n def __init__(s): 0"})
    found = site.one(modules.autoattack)
    assert (found.status, "AutoAttack.__init__ with attacks_to_run" in found.evidence) == ("broken", True)
    assert found.remedy == f"rename or remove {site.folder / 'autoattack'}: purebench provides the module"
    (site.folder / "autoattack" / "autoattack.py").write_text(FRA31)
    (site.folder / "autoattack" / "state.py").touch()
    place = site.folder / "autoattack"
    found = site.one(modules.autoattack)
    assert (found.status, found.evidence) == ("ok", f"the module autoattack is {place}, over pyautoattack 0.2.0")
    site.install("autoattack", "0.1")
    found = site.one(modules.autoattack)
    assert (found.status, found.evidence) == ("ok", "the module autoattack is fra31's autoattack 0.1")


@pytest.mark.parametrize(
    ("tool", "again", "get"),
    [
        ("pip", "pip install --force-reinstall --no-deps robustbench==1.1.1", 'pip install "setuptools>=77.0.3,<82"'),
        ("uv", "uv pip install --reinstall --no-deps robustbench==1.1.1", 'uv pip install "setuptools>=77.0.3,<82"'),
    ],
)
def test_remedies_where_purebench_is_installed_from_a_wheel(site, tool, again, get):
    site.install("purebench", "0.1.0", installer=tool)
    site.install("robustbench", "1.1.1", {"robustbench/eval.py": "new"})
    stray = {"torchattacks/a.py": "a", "robustbench/eval.py": "old"}
    site.install("torchattacks", "3.5.1", stray)
    shadowed = site.one(files.complete, libraries=("robustbench",))
    assert (shadowed.status, shadowed.remedy) == ("broken", again)
    assert site.one(modules.pkg_resources).remedy == get
    (site.folder / "robustbench" / "eval.py").write_text("new")
    assert site.one(files.complete, libraries=("robustbench",)).status == "ok"


def test_a_checkout_is_mended_by_uv_sync_unless_pip_installed_it(site):
    site.install("purebench", "0.1.0", installer="uv")
    assert site.one(modules.autoattack, checkout=True).remedy == "uv sync"
    (site.folder / "purebench-0.1.0.dist-info" / "INSTALLER").write_text("pip")
    assert site.one(modules.autoattack, checkout=True).remedy == 'pip install "pyautoattack>=0.2.0"'


@pytest.mark.parametrize(
    ("version", "module", "status"), [("81.0.0", True, "ok"), ("70.0", True, "warn"), ("82.0.1", False, "broken")]
)
def test_pkg_resources(site, version, module, status):
    site.install("setuptools", version, {"pkg_resources/__init__.py": ""} if module else {})
    found = site.one(modules.pkg_resources)
    assert found.status == status
    assert status == "ok" or found.remedy == "uv sync"


def test_optional_packages(site):
    numba, hub = site.look(modules.optional)
    assert (numba.status, "Brendel-Bethge" in numba.breaks) == ("warn", True)
    assert numba.remedy == "uv sync"
    assert (hub.status, "--extra hf" in hub.evidence) == ("ok", True)


def test_a_record_that_lists_nothing_is_broken(site):
    site.install("robustbench", "1.1.1")
    for record in site.folder.glob("robustbench-*.dist-info/RECORD"):
        record.write_text("")
    found = next(f for f in site.look(files.complete) if f.check == "robustbench-files")
    assert (found.status, "--reinstall-package robustbench" in found.remedy) == ("broken", True)


@pytest.fixture
def broken(site, monkeypatch):
    """An environment in which foolbox is not what was installed."""
    site.install("foolbox", "3.3.4", {"foolbox/a.py": "a"})
    (site.folder / "foolbox" / "a.py").write_text("b")
    bench.doctor.examine._broken.cache_clear()
    monkeypatch.setattr(Environment, "here", classmethod(lambda cls: cls((str(site.folder),))))
    yield site
    bench.doctor.examine._broken.cache_clear()


def test_a_broken_library_is_refused(broken):
    require("none")
    with pytest.raises(UserError, match=r"foolbox is not .*; uv sync --reinstall-package foolbox") as caught:
        require("foolbox")
    assert "\n" not in str(caught.value)


BOARD = """
dataset = "digits"
indices = "first-4"
threat = { norm = "Linf", eps = "1/5" }
[[defense]]
name = "undefended"
[[attack]]
name = "foolbox:LinfPGD"
"""


def test_a_broken_library_stops_a_run_before_any_work(broken, tmp_path):
    board = tmp_path / "one.toml"
    board.write_text(BOARD)
    done = purebench_here("run", board, "--out", tmp_path / "out", "--quiet")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "uv sync --reinstall-package foolbox" in done.stderr
    assert not list((tmp_path / "out").rglob("*.parquet"))
    shown = purebench_here("doctor", "--json")
    assert shown.returncode == 2
    assert any(f["check"] == "foolbox-files" and f["status"] == "broken" for f in json.loads(shown.stdout))
    assert "remedy: uv sync --reinstall-package foolbox" in purebench_here("doctor").stdout


def test_deep_looks_at_imports(monkeypatch):
    monkeypatch.setattr("bench.doctor.imports._MODULES", {"good": "json", "bad": "no_such_module"})
    good, bad = imports()
    assert (good.status, bad.status) == ("ok", "broken")
    assert "ModuleNotFoundError: No module named 'no_such_module'" in bad.evidence


def test_the_paths_are_real():
    assert Path(Environment.here().module("robustbench") or "").is_dir()
