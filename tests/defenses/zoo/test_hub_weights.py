"""Weights of the Hugging Face hub: a local copy of a repository stands for the hub; no network is used."""

import json
import os
import shutil

import pytest
import torch
from boards import ROOT, purebench, purebench_here
from huggingface_hub.errors import CorruptedCacheException

from defenses import load_model
from defenses.data.dataset import load_dataset
from defenses.zoo import hub_weights
from defenses.zoo.hub_weights import folder_of, split_roots

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TABLE = (
    "--dataset",
    "digits",
    "--attack",
    "bench:pgd",
    "--indices",
    "first-4",
    "--eps",
    "1/5",
    "--workers",
    0,
    "--out",
)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The hub's cache, without a network, with the digits weights of adp and its classifier under another name."""
    folder = tmp_path / "hub" / "models--someone--weights"
    copy = folder / "snapshots" / COMMIT / "digits"
    copy.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT)
    for name in ("adp", "undefended"):
        for ending in ("json", "safetensors"):
            shutil.copy(ROOT / f"defenses/weights/digits/{name}.{ending}", copy / f"{name}-of-hub.{ending}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for function in (hub_weights._copy, hub_weights.folder_at_hand):
        function.cache_clear()
    yield copy
    for function in (hub_weights._copy, hub_weights.folder_at_hand):
        function.cache_clear()


def run(tmp_path, root, *, classifier="undefended-of-hub"):
    return purebench_here(
        "run",
        "--defense",
        "pgd-at",
        *TABLE,
        tmp_path / "out",
        "--set",
        f"classifier={classifier}",
        "--weights-root",
        root,
    )


def test_a_board_runs_on_weights_of_the_hub(hub, tmp_path):
    for root in ("hf:someone/weights", f"hf:someone/weights@{COMMIT}"):
        done = run(tmp_path, root)
        assert done.returncode == 0, done.stderr
    sha256 = json.loads((hub / "undefended-of-hub.json").read_text())["sha256"]
    assert sha256 in (tmp_path / "out/manifest.json").read_text()


def test_processes_read_the_same_copy(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("PUREBENCH_WEIGHTS", "hf:someone/weights")
    options = (
        "--dataset",
        "digits",
        "--indices",
        "first-4",
        "--eps",
        "1/5",
        "--workers",
        1,
        "--set",
        "classifier=undefended-of-hub",
    )
    done = purebench("run", "--defense", "pgd-at", "--attack", "bench:pgd", *options, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "bench:pgd" in done.stdout


def test_a_table_of_candidates_is_not_kept_on_the_hub(hub):
    options = ("--grid", "sigma=1/4", "--set", "classifier=undefended-of-hub", "--eps", "1/5")
    done = purebench_here("tune", "adp", *options, "--weights-root", "hf:someone/weights")
    assert done.returncode == 2
    assert "name a copy of it with --weights-root" in done.stderr


def test_no_file_is_kept_in_the_copy_that_the_variable_names(hub, monkeypatch):
    for ending in ("json", "safetensors"):
        (hub / f"adp-of-hub.{ending}").rename(hub / f"adp.{ending}")
        shutil.copy(ROOT / f"defenses/weights/digits/ebm-mcmc.{ending}", hub)
    monkeypatch.setenv("PUREBENCH_WEIGHTS", "hf:someone/weights")
    held = {*hub.iterdir()}
    tune = ("tune", "adp", "--grid", "sigma=1/4", "--eps", "1/5")
    for option, command in (("--weights-root", tune), ("--out", ("train", "ebm-mcmc", "--stability"))):
        done = purebench_here(*command)
        assert done.returncode == 2
        assert f"not in hf:someone/weights; name a copy of it with {option}" in done.stderr
    assert {*hub.iterdir()} == held


def test_a_training_is_not_written_to_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = purebench_here("train", "pgd-at", "--out", "hf:someone/weights")
    assert done.returncode == 2
    assert "nothing is written to hf:someone/weights; name a folder with --out" in done.stderr
    assert not [*tmp_path.iterdir()]


def test_results_are_read_without_the_repository_that_the_variable_names(hub, tmp_path, monkeypatch):
    assert run(tmp_path, "hf:someone/weights").returncode == 0
    monkeypatch.setenv("PUREBENCH_WEIGHTS", "hf:someone/other")
    for command in (("table",), ("claims",), ("site", "--out", tmp_path / "site")):
        done = purebench_here(command[0], tmp_path / "out", *command[1:])
        assert done.returncode == 0, done.stderr


def test_load_model_takes_a_repository(hub):
    name = "undefended-of-hub"
    found, ours = (
        load_model("pgd-at", "digits", weights_root=root, classifier=of)
        for root, of in (("hf:someone/weights", name), (None, "undefended"))
    )
    x = load_dataset("digits").x[:4]
    assert torch.equal(found(x), ours(x))


def test_the_variable_names_repositories_too(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("PUREBENCH_WEIGHTS", f"{tmp_path}{os.pathsep}hf:someone/weights")
    done = purebench_here(
        "run", "--defense", "pgd-at", *TABLE, tmp_path / "out", "--set", "classifier=undefended-of-hub"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("root", "words"),
    [
        ("hf:someone/other", "hf:someone/other cannot be read (LocalEntryNotFoundError: "),
        (f"hf:someone/weights@{'f' * 40}", "cannot be read ("),
        ("hf:weights", "hf:weights names no repository of weights; write hf:owner/repository[@revision]"),
        ("hf:someone/we ights", "cannot be read (HFValidationError: "),
    ],
)
def test_what_cannot_be_had_is_one_line(hub, tmp_path, root, words):
    done = run(tmp_path, root)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert words in line
    assert not (tmp_path / "out").exists()


def test_a_download_that_breaks_off_is_one_line(hub, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise CorruptedCacheException("the connection was lost")

    monkeypatch.setattr("huggingface_hub.snapshot_download", broken)
    (line,) = run(tmp_path, "hf:someone/weights").stderr.splitlines()
    assert "cannot be read (CorruptedCacheException: the connection was lost)" in line


def test_a_file_that_is_not_that_of_its_description_is_refused(hub, tmp_path):
    shutil.copy(hub / "adp-of-hub.safetensors", hub / "undefended-of-hub.safetensors")
    done = run(tmp_path, "hf:someone/weights")
    assert done.returncode == 2
    assert "its SHA-256 is not that of its .json" in done.stderr.splitlines()[-1]


def test_a_repository_without_weights_is_one_line(hub, tmp_path):
    for file in hub.glob("*.safetensors"):
        file.unlink()
    assert "has no <dataset>/<name>.safetensors" in run(tmp_path, "hf:someone/weights").stderr


def test_folders_apart_as_in_path():
    p = os.pathsep
    assert split_roots(f"hf:a/b@c{p}/x{p}{p}hf:d/e{p}y") == ["hf:a/b@c", "/x", "hf:d/e", "y"]
    assert split_roots("") == []
    assert folder_of("here").as_posix() == "here"
