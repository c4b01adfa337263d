"""The wheel installs by pip and by uv without overrides, and brings the module `autoattack` to RobustBench."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest
from boards import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

UNREACHABLE = re.compile(r"dns error|error sending request|client error \(Connect\)|new connection|timed out", re.I)
SHADOWED = ("torchattacks", "robustbench")  # both bring files of robustbench
OWN = Path("defenses") / "utils" / "autoattack"


def run(*command, cwd, **variables):
    """Run a command outside of the checkout; skip where it fails because no registry answers."""
    environment = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "UV_OVERRIDE", "PYTHONPATH")}
    environment |= variables
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode and UNREACHABLE.search(done.stderr):
        pytest.skip(f"no package registry answers: {done.stderr.strip().splitlines()[-1]}")
    return done


def output(*command, cwd, **variables):
    done = run(*command, cwd=cwd, **variables)
    assert done.returncode == 0, done.stderr
    return done.stdout


def python(code, cwd, *path):
    """What a fresh interpreter prints, with folders before all that is installed."""
    return output(sys.executable, "-W", "ignore", "-c", code, cwd=cwd, PYTHONPATH=os.pathsep.join(map(str, path)))


@pytest.fixture(scope="module")
def uv():
    found = os.environ.get("UV") or shutil.which("uv")
    return found or pytest.skip("uv is not at hand")


@pytest.fixture(scope="module")
def wheel(uv, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    output(uv, "build", "--wheel", "--out-dir", folder, ROOT, cwd=folder)
    (file,) = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def unpacked(wheel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unpacked")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


@pytest.fixture(scope="module")
def requirements(unpacked):
    (metadata,) = unpacked.glob("*.dist-info/METADATA")
    return [Requirement(r) for r in HeaderParser().parsestr(metadata.read_text()).get_all("Requires-Dist")]


@pytest.fixture(scope="module")
def pip(uv, tmp_path_factory):
    """pip in an environment of its own, where nothing else is installed."""
    folder = tmp_path_factory.mktemp("pip")
    output(uv, "venv", "--seed", "--python", sys.executable, "site", cwd=folder)
    places = [folder / "site" / "bin" / "python", folder / "site" / "Scripts" / "python.exe"]
    return [next(place for place in places if place.exists()), "-m", "pip", "--disable-pip-version-check"]


@pytest.fixture(scope="module")
def resolved(pip, wheel, tmp_path_factory):
    """Metadata of all that pip would install with the wheel, by name."""
    folder = tmp_path_factory.mktemp("resolved")
    output(*pip, "install", "--quiet", "--dry-run", "--report", "report.json", wheel, cwd=folder)
    listed = [item["metadata"] for item in json.loads((folder / "report.json").read_text())["install"]]
    return {canonicalize_name(metadata["name"]): metadata for metadata in listed}


def test_the_wheel_has_all_files_of_the_packages_and_no_other(wheel):
    words = ("git", "ls-files", "--cached", "--others", "--exclude-standard", "bench", "defenses", "leaderboards")
    files = {name for name in output(*words, cwd=ROOT).splitlines() if (ROOT / name).is_file()}
    expected = {name for name in files if not name.startswith("defenses/weights/cifar10/")}
    assert expected < files
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {n for n in names if ".dist-info/" not in n} == expected
    for kind in (r"defenses/utils/autoattack/state\.py", r"defenses/cards/.*\.toml", r"leaderboards/.*\.toml",
                 r"defenses/weights/.*\.safetensors"):  # fmt: skip
        assert any(re.fullmatch(kind, name) for name in names), kind


def test_every_requirement_is_on_a_registry_under_a_name_of_somebody_else(requirements):
    assert [str(r) for r in requirements if r.url or "purebench" in r.name] == []
    assert {"robustbench", "torchattacks", "pyautoattack", "foolbox"} <= {r.name for r in requirements}


def test_uv_resolves_the_wheel_without_overrides(uv, wheel, tmp_path):
    (tmp_path / "in.txt").write_text(f"purebench @ {wheel.as_uri()}\n")
    pins = output(uv, "pip", "compile", "--quiet", "--no-annotate", "--python", sys.executable, "in.txt", cwd=tmp_path)
    assert {"robustbench", "torchattacks", "torch"} <= {line.partition("==")[0] for line in pins.splitlines()}


@pytest.mark.slow
def test_pip_resolves_the_wheel_without_overrides(resolved):
    assert {"robustbench", "torchattacks", "torch", "purebench"} <= set(resolved)


@pytest.fixture(scope="module")
def stubs(pip, resolved, wheel, tmp_path_factory):
    """A folder of wheels: purebench's, those with files of robustbench, and all else they need without any file."""
    folder = tmp_path_factory.mktemp("stubs")
    shutil.copy(wheel, folder)
    real = [f"{name}=={resolved[name]['version']}" for name in SHADOWED]
    output(*pip, "download", "--quiet", "--no-deps", "--dest", folder, *real, cwd=folder)
    for name, metadata in resolved.items():
        if name in ("purebench", *SHADOWED):
            continue
        stem = f"{name.replace('-', '_')}-{metadata['version']}"
        lines = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {metadata['version']}"]
        lines += [f"Requires-Dist: {r}" for r in metadata.get("requires_dist", ())]
        lines += [f"Provides-Extra: {extra}" for extra in metadata.get("provides_extra", ())]
        with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as archive:
            archive.writestr(f"{stem}.dist-info/METADATA", "\n".join(lines) + "\n")
            tag = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            archive.writestr(f"{stem}.dist-info/WHEEL", tag)
            archive.writestr(f"{stem}.dist-info/RECORD", f"{stem}.dist-info/RECORD,,\n")
    return folder


@pytest.mark.slow
def test_pip_leaves_robustbenchs_own_files_and_the_doctors_command_mends_them(pip, stubs, tmp_path):
    from bench.doctor import files
    from bench.doctor.environment import Environment

    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(stubs), "PIP_CONFIG_FILE": os.devnull}
    output(*pip, "install", "--quiet", "purebench", cwd=tmp_path, **offline)
    site = Path(output(pip[0], "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip())

    def found():
        environment = Environment((str(site),), libraries=("robustbench",))
        (finding,) = files.complete(environment)
        return finding

    assert found().status == "ok"
    # The other order, as uv leaves it.
    output(*pip, "install", "--quiet", "--force-reinstall", "--no-deps", "torchattacks", cwd=tmp_path, **offline)
    complete = found()
    assert complete.status == "broken"
    assert re.fullmatch(r"pip install --force-reinstall --no-deps robustbench==\S+", complete.remedy)
    output(*pip, *complete.remedy.split()[1:], cwd=tmp_path, **offline)
    assert found().status == "ok"


PROVIDED = """
import importlib.util, sys
import {package}
print(importlib.util.find_spec("autoattack").origin)
assert not {{"torch", "numpy", "pyautoattack"}} & set(sys.modules)
"""


@pytest.mark.parametrize("package", ["bench", "defenses"])
def test_importing_a_package_provides_the_module_and_imports_nothing_heavy(unpacked, package, tmp_path):
    (tmp_path / "autoattack").mkdir()  # without __init__.py: no module
    origin = python(PROVIDED.format(package=package), tmp_path, unpacked, tmp_path).strip()
    assert Path(origin) == unpacked / OWN / "__init__.py"


@pytest.mark.parametrize("order", ["before", "behind"])
def test_an_installed_autoattack_wins(unpacked, order, tmp_path):
    other = tmp_path / "other"
    (other / "autoattack").mkdir(parents=True)
    (other / "autoattack" / "__init__.py").write_text("")
    path = [other, unpacked] if order == "before" else [unpacked, other]
    origin = python("import bench, autoattack; print(autoattack.__file__)", tmp_path, *path).strip()
    assert Path(origin) == other / "autoattack" / "__init__.py"


LATE = """
import sys, defenses
from importlib.machinery import ModuleSpec

class Editable:
    def find_spec(self, name, path=None, target=None):
        return ModuleSpec(name, self, origin="editable") if name == "autoattack" else None
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        pass

class Old:
    def find_module(self, name, path=None):
        return None

sys.meta_path += [Old(), Editable()]
import autoattack
print(autoattack.__spec__.origin, sum(type(f).__name__ == "AutoAttackFinder" for f in sys.meta_path))
"""


def test_a_module_that_a_finder_added_later_knows_wins_too(unpacked, tmp_path):
    assert python(LATE, tmp_path, unpacked) == "editable 1\n"


WORKER = """
import defenses

def names(state):
    return type(state).__module__, sorted(state.attacks_to_run), defenses.__file__
"""
ROBUSTBENCH = """
import multiprocessing, sys
import bench, robustbench.eval, robustbench.data
from autoattack import AutoAttack, autopgd_base, checks, fab_base, fab_projections, fab_pt, other_utils, square
from autoattack.state import EvaluationState
import worker

assert robustbench.eval.AutoAttack is AutoAttack and robustbench.eval.EvaluationState is EvaluationState
with multiprocessing.get_context("spawn").Pool(1) as pool:
    module, attacks, file = pool.apply(worker.names, (EvaluationState({"square"}),))
print(module, *attacks, file, sys.modules["autoattack"].__file__)
"""


@pytest.mark.slow
def test_robustbench_runs_beside_the_unpacked_wheel_and_in_its_worker_processes(unpacked, tmp_path):
    (tmp_path / "worker.py").write_text(WORKER)
    printed = python(ROBUSTBENCH, tmp_path, unpacked, tmp_path).splitlines()[-1]
    here = f"{unpacked / 'defenses' / '__init__.py'} {unpacked / OWN / '__init__.py'}"
    assert printed == f"autoattack.state square {here}"
