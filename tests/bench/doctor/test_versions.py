"""The doctor knows which versions go together, and what an accelerator needs."""

import pytest
from doctor_site import Site

from bench.doctor.examine import hardware, versions


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path / "site-packages")


def test_requirements(site):
    site.install("torchattacks", "3.5.1", requires=["requests~=2.25.1", "absent>=1", "extra; extra == 'x'"])
    site.install("robustbench", "1.1.1", requires=["timm==1.0.9"])
    site.install("requests", "2.20")
    site.install("timm", "1.0.31")
    requests, absent = sorted(site.look(versions.requirements), key=lambda f: f.status, reverse=True)
    assert (requests.status, absent.status) == ("warn", "broken")
    assert "torchattacks asks for requests~=2.25.1; requests 2.20 is installed" in requests.evidence
    assert requests.remedy.startswith('uv sync; if that changes nothing, "requests>=2.32" in [tool.uv] override-')
    assert absent.remedy == "uv sync"


def test_a_demand_for_an_older_numpy_gives_way_to_purebenchs(site):
    site.install("purebench", "0.1", requires=["numpy>=2"], installer="uv")
    site.install("robustbench", "1.1.1", requires=["numpy<2"])
    site.install("numpy", "2.4.0")
    found = site.one(versions.requirements, checkout=True)
    changed = 'uv sync; if that changes nothing, "numpy>=2" in [tool.uv] override-dependencies of pyproject.toml'
    assert (found.status, found.remedy) == ("warn", changed)
    assert site.one(versions.requirements).remedy == 'uv pip install "numpy>=2"'


def test_purebenchs_own_demands_need_no_override(site):
    site.install("purebench", "0.1", requires=["numpy>=2"])
    site.install("numpy", "1.26.4")
    assert site.one(versions.requirements).remedy == "uv sync"


def test_an_override_is_no_conflict(site):
    site.install("robustbench", "1.1.1", requires=["timm==1.0.9", "Jinja2~=3.1.2"])
    site.install("timm", "1.0.31")
    site.install("jinja2", "3.1.6")
    found = site.one(versions.requirements)
    assert (found.status, "overridden on purpose: robustbench asks for timm==1.0.9" in found.evidence) == ("ok", True)


@pytest.mark.parametrize(
    ("torch", "vision", "status"),
    [("2.15.0", "0.29.2", "ok"), ("2.15.0+cu132", "0.29.2", "ok"), ("2.13.0", "0.29.2", "broken"),
     ("2.15.0+cpu", "0.29.2+cu132", "broken"), ("2.15.0", "0.29.2+cu118", "warn")],
)  # fmt: skip
@pytest.mark.parametrize("wanted", ["torch==2.15.0", "torch (>=2.14.0)"])
def test_torch_and_torchvision(site, torch, vision, status, wanted):
    site.install("torch", torch)
    site.install("torchvision", vision, requires=["numpy", wanted])
    found = site.one(versions.torch_pair)
    assert found.status == status
    assert status == "ok" or "--reinstall-package torchvision" in found.remedy


@pytest.mark.parametrize(("built", "status"), [("0.28.0+cu130", "broken"), ("0.28.0+cpu", "ok"), ("0.28.0", "ok")])
def test_torch_for_the_cpu_and_torchvision_of_the_registry(site, built, status):
    site.install("torch", "2.13.0+cpu")
    files = {"torchvision/__init__.py": "", "torchvision/version.py": f"__version__ = '{built}'\n"}
    site.install("torchvision", "0.28.0", files, requires=["torch==2.13.0"])
    site.install("purebench", "0.1", installer="uv")
    found = site.one(versions.torch_pair)
    assert found.status == status
    assert status == "ok" or "uv pip install --reinstall torch torchvision" in found.remedy


GPU = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}  Thu May  1 2026\nGCC version:  gcc version 12.2.0\n"


@pytest.mark.parametrize(
    ("cuda", "driver", "visible", "status", "word"),
    [
        (None, "580.95.05", None, "warn", "built for the CPU"),
        ("13.2", None, None, "ok", "no NVIDIA driver"),
        ("13.2", "580.95.05", None, "ok", "built for CUDA 13.2"),
        ("13.2", "535.104.05", None, "warn", "needs 580"),
        ("13.2", "580.95.05", "", "warn", "CUDA_VISIBLE_DEVICES"),
        (None, None, None, "ok", "built for the CPU"),
    ],
)
def test_the_accelerator(site, tmp_path, cuda, driver, visible, status, word):
    text = f"from typing import Optional\ncuda: Optional[str] = {cuda!r}\n"
    site.install("torch", "2.15.0", {"torch/__init__.py": "", "torch/version.py": text})
    if driver:
        (tmp_path / "version").write_text(GPU.format(driver))
    found = site.one(hardware.accelerator, proc=tmp_path, visible=visible)
    assert (found.status, word in found.evidence) == (status, True)
    assert bool(found.remedy) == (status == "warn")


def test_an_old_python(site):
    found = site.one(versions.python, python=(3, 10, 4))
    assert (found.status, found.remedy) == ("broken", "uv sync --python 3.12")


@pytest.mark.parametrize(
    ("tool", "torch", "pair", "python"),
    [
        ("pip", 'pip install "torch"', "pip install --force-reinstall torch torchvision", "python3.12 -m venv"),
        ("uv", 'uv pip install "torch"', "uv pip install --reinstall torch torchvision", "uv venv --python 3.12"),
    ],
)
def test_remedies_of_gpu_and_python_from_a_wheel(site, tmp_path, tool, torch, pair, python):
    site.install("purebench", "0.1.0", installer=tool)
    assert site.one(hardware.accelerator).remedy == torch
    site.install("torch", "2.15.0+cpu", {"torch/__init__.py": "", "torch/version.py": "cuda = None\n"})
    (tmp_path / "version").write_text(GPU.format("580.95.05"))
    found = [
        site.one(hardware.accelerator, proc=tmp_path),
        site.one(versions.python, python=(3, 10, 4)),
    ]
    for finding, words in zip(found, (pair, python), strict=True):
        assert words in finding.remedy
        assert "uv sync" not in finding.remedy
        assert "pyproject" not in finding.remedy
