"""Bad input: one clear line, exit code 2, nothing lost."""

import errno
import os
import re
import shutil
import subprocess
import sys

import pytest
from boards import BOARD, ROOT, write_board
from boards import purebench_here as purebench

from bench.analysis.results import load_cells, load_results
from defenses.utils.errors import UserError


def refused(result, *words: str) -> None:
    """Exit code 2 and one line, which has all words."""
    assert result.returncode == 2, result.stdout + result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("purebench:")]
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in lines[0], lines[0]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('name = "{models}:linear"', 'name = "apd"', ['unknown defense "apd"', "adp"]),
        ('name = "autoattack:apgd-ce"', 'name = "autoattack:apdg-ce"', ["unknown attack", "apgd-ce"]),
        ('name = "autoattack:apgd-ce"', 'name = "foolbox:LinfPDG"', ["foolbox:LinfPDG", "LinfPGD"]),
        ("n_iter = 3", "n_itr = 3", ["n_itr", "n_iter"]),
        ('dataset = "digits"', 'dataset = "digit"', ['unknown data set "digit"', "digits"]),
        ("block = 20", "blok = 20", ['unknown key in the board "blok"', "block"]),
        ("block = 20", "block = 0", ["block", "at least 1"]),
        ('label = "noisy"', 'label = "noisy"\nblock = 20', ["move `block` above the first [[defense]]"]),
        ("draws = 5", 'draws = 5\nnulls = ["none"]', ["move `nulls` above [verdict]"]),
        ('eps = "1/10"', 'eps = "8/225x"', ['"8/225x" is not a number', "8/255"]),
        ('eps = "1/10"', 'eps = "-1/10"', ["positive"]),
        ('eps = "1/10"', 'eps = "1e400"', ["larger than any image", "8/255"]),
        ('eps = "1/10"', "eps = 8", ["larger than any image: under Linf, 1 reaches them all", "8/255"]),
        ('eps = "1/10"', 'eps = "1e-400"', ["smaller than float32", "8/255"]),
        ('norm = "Linf"', 'norm = "Lind"', ['unknown norm "Lind"', "Linf"]),
        ('indices = "first-60"', 'indices = "first-6000"', ["first-6000", "500"]),
        ("draws = 5", "draws = 0", ["draws", "at least 1"]),
        ("eot = 2", "eot = 0", ["eot", "at least 1"]),
        ("[threat]", "[threat", ["not a TOML file"]),
        ('label = "noisy"', 'label = "linear"', ["occurs twice"]),
        ('label = "noisy"', "label = 3", ["label", "must be a text"]),
        ('label = "slow"', 'label = "worst case"', ["taken by a row"]),
        ('name = "small"', 'name = "../small"', ["name a folder"]),
        ('"{models}:noisy"', '":noisy"', ["names nothing", "module:Class"]),
    ],
)
def test_boards(tmp_path, old, new, words):
    assert old in BOARD
    path = write_board(tmp_path, BOARD.replace(old, new))
    refused(purebench("run", path, "--out", tmp_path / "out"), path.name, *words)
    assert not (tmp_path / "out").exists()


def test_a_board_that_is_not_there(tmp_path):
    refused(purebench("run", "quickstrat"), "quickstrat", "quickstart")


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("Probabilities", ["returns probabilities", "softmax"]),
        ("NotANumber", ["NaN"]),
        ("five", ["(8, 5)", "10 classes"]),
        ("Large", ["1x8x8"]),
        ("Training", ["train mode", "model.eval()"]),
        ("BatchNorm", ["other images in the batch"]),
        ("GlobalNoise", ["random", "stochastic = true"]),
        ("Tuple", ["tuple", "tensor of logits"]),
        ("Linear", ["unknown name", "linear"]),
        ("unseeded", ["another model each time"]),
    ],
)
def test_models(tmp_path, model, words):
    path = write_board(tmp_path, BOARD.replace(":linear", f":{model}"))
    out = tmp_path / "out"
    refused(purebench("run", path, "--out", out, "--defense", "linear"), *words)
    assert not out.exists()
    out.mkdir()  # by the user: it is left
    refused(purebench("run", path, "--out", out, "--defense", "linear", "--workers", "0"), *words)
    assert not list(out.iterdir())


def attack_board(tmp_path, attack: str):
    return write_board(tmp_path, BOARD.replace(":slow", f":{attack}").replace("{{ seconds = {seconds} }}", "{{}}"))


@pytest.mark.parametrize(
    ("attack", "words"),
    [
        ("raises", ["RuntimeError: the attack broke"]),
        ("wrong_shape", ["returned (20, 1, 4, 8)"]),
    ],
)
def test_attacks_that_fail_are_errors_and_never_robust(tmp_path, attack, words):
    out = tmp_path / "out"
    result = purebench("run", attack_board(tmp_path, attack), "--out", out)
    assert result.returncode == 2
    for word in words:
        assert word in result.stderr
    assert "Traceback" not in result.stderr
    cells = load_cells(out)
    assert (cells[cells["attack"] == "slow"]["status"] == "error").all()
    assert (cells[cells["attack"] != "slow"]["status"] == "ok").all()
    frame = load_results(out)
    assert frame[frame["attack"] == "slow"]["accuracy"].isna().all()
    assert "error" in result.stdout
    errors = int((cells["status"] == "error").sum())
    assert f"{len(cells)} of {len(cells)} cells of the board" in (status := purebench("status", out).stdout)
    assert f" finished, {errors} errors among them, in " in status


@pytest.mark.parametrize(
    ("attack", "judged", "words"),
    [
        ("nan", 19, "not finite"),
        ("leaves", None, "left the Linf ball: 0.15 > 0.1"),
        ("outside", None, "left the box"),
        ("spoils", 0, "left the Linf ball"),
    ],
)
def test_images_outside_the_rules_have_no_verdict(tmp_path, attack, judged, words):
    out = tmp_path / "out"
    result = purebench("run", attack_board(tmp_path, attack), "--out", out)
    assert result.returncode == 2
    assert words in result.stderr
    frame = load_results(out)
    rows = frame[(frame["attack"] == "slow") & (frame["defense"] == "linear")]
    bad = rows[rows["status"] == "error"]
    assert len(bad)
    assert bad["accuracy"].isna().all()
    assert (bad["draws"] == 0).all()
    if judged is not None:
        assert len(rows) - len(bad) == judged * 3
    assert frame[frame["attack"] == "autoattack:apgd-ce"]["accuracy"].notna().all()


def test_errors_are_run_again_on_request(tmp_path):
    path, out = attack_board(tmp_path, "raises"), tmp_path / "out"
    assert purebench("run", path, "--out", out, "--quiet").returncode == 2
    again = purebench("run", path, "--out", out)
    assert "[1/" not in again.stderr
    retried = purebench("run", path, "--out", out, "--retry-errors")
    assert "[6/6]" in retried.stderr
    assert retried.returncode == 2


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("setpriv"), reason="root may write everywhere")
def test_no_write_permission(tmp_path):
    folder = tmp_path / "closed"
    folder.mkdir()
    file = folder / "file"
    file.touch()
    path = write_board(tmp_path)
    refused(purebench("run", path, "--out", file / "out"), "cannot write", "--out")


def test_status_and_plan_refuse_what_run_refuses(tmp_path):
    path, file, out = write_board(tmp_path), tmp_path / "file", tmp_path / "out"
    file.touch()
    out.mkdir()
    (out / "manifest.json").write_text('{"board": "other"}')
    for command in (["status", path], ["plan", path], ["plan", path, "--probe"]):
        for bad in (file, file / "below"):
            refused(purebench(*command, "--out", bad), f"{file} is no folder", "--out")
        refused(purebench(*command, "--out", out), 'results of the board "other"', "--out")
    assert file.read_bytes() == b""
    assert not (out / "forecast.json").exists()


def test_a_folder_is_tried_before_work_is_done_for_it(tmp_path, monkeypatch):
    """A disk that is full, and a file where the folder would be."""

    def full(**_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def worked(*_: object, **__: object) -> None:
        raise AssertionError("work was done")

    monkeypatch.setattr("bench.execution.forecast.probe.probe", worked)
    monkeypatch.setattr("defenses.training.train._load_material", worked)
    file = tmp_path / "file"
    file.touch()
    refused(purebench("train", "undefended", "--out", file), f"cannot write to {file}", "--out")
    monkeypatch.setattr("tempfile.TemporaryFile", full)
    refused(purebench("train", "undefended", "--out", tmp_path / "w"), "no space left")
    refused(purebench("plan", write_board(tmp_path), "--probe", "--out", tmp_path / "o"), "no space left")


def test_full_disk(tmp_path):
    """A small tmpfs, mounted in a name space of its own."""
    unshare = ["unshare", "--mount", "--map-root-user"] if os.geteuid() else ["unshare", "--mount"]
    mount = tmp_path / "disk"
    mount.mkdir()
    probe = subprocess.run([*unshare, "mount", "-t", "tmpfs", "tmpfs", str(mount)], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("no right to mount a tmpfs")
    path = write_board(tmp_path)
    run = f"{sys.executable} -m bench run {path} --quiet --out {mount}/out"
    script = f"mount -t tmpfs -o size=100k tmpfs {mount}; {run}; code=$?; ls {mount}/out/parts | wc -l; exit $code"
    result = subprocess.run(
        [*unshare, "sh", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=200, check=False
    )
    assert result.returncode == 2, result.stderr
    assert "no space left" in result.stderr
    assert "Traceback" not in result.stderr
    assert int(result.stdout.split()[-1]) >= 1  # what was finished is kept


def test_a_device_that_is_not_there(tmp_path):
    for name in ("gpu", "cuda:99", "x" * 300):
        done = purebench("run", write_board(tmp_path), "--out", tmp_path / "o", "--device", name)
        if done.returncode:
            refused(done, name[:40], "try cpu")
            assert len(done.stderr.strip().splitlines()[-1]) < 160


def test_tables_of_nothing(tmp_path):
    refused(purebench("table", tmp_path), "no results folder")
    refused(purebench("train", "apd"), 'unknown recipe "apd"', "adp")
    refused(purebench("run", "quickstart", "--defense", "apd", "--out", tmp_path / "x"), "unknown defense", "adp")


def test_a_device_that_does_not_exist_leaves_nothing(tmp_path):
    out = tmp_path / "out"
    done = purebench("run", write_board(tmp_path), "--out", out, "--device", "nonsense:0")
    assert done.returncode == 2
    assert 'device "nonsense:0" cannot be used' in done.stderr
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "params", "text"),
    [
        ("adp", {"runs": 0}, "runs is 0; it must be a whole number, at least 1"),
        ("adp", {"runs": 1.5}, "runs is 3/2; it must be a whole number, at least 1"),
        ("adp", {"combine": "foo"}, 'combine is "foo"; it must be "softmax-mean" or "logit-mean"'),
        ("adp", {"steps": 2.5}, "steps is 5/2; it must be a whole number, at least 0"),
        ("adp", {"steps": True}, "steps is True; it must be a whole number, at least 0"),
        ("adp", {"sigma": "wide"}, 'sigma is "wide"; it must be a number'),
        ("adp", {"sigma": -1}, "sigma is -1; it must be at least 0"),
        ("ebm-mcmc", {"steps": 2.5}, "steps is 5/2; it must be a whole number, at least 0"),
        ("ebm-mcmc", {"eps": "x"}, 'eps is "x"; it must be a number'),
        ("ebm-mcmc", {"temperature": 0}, "temperature is 0; it must be positive"),
    ],
)
def test_parameters_of_a_defense_are_checked(name, params, text):
    from defenses.zoo.registry import load_model

    with pytest.raises(UserError, match=re.escape(text)):
        load_model(name, "digits", **params)


UNBUILT = """
import torch
from defenses.core.defense import Defense

class Own(Defense):
    def __init__(self):
        self.k = 3

    def logits(self, x, noise, *, gradient="exact", runs=None):
        return x.flatten(1)

class Plain(torch.nn.Module):
    def __init__(self):
        self.k = 3
"""


@pytest.mark.parametrize("name", ["Own", "Plain"])
def test_a_class_that_forgets_super_init_is_told_so(tmp_path, name):
    from bench import benchmark
    from defenses.utils.plugins import load_object

    (tmp_path / "forgetful.py").write_text(UNBUILT)
    found = purebench("certify", f"{tmp_path / 'forgetful.py'}:{name}")
    line = f"{name}.__init__ does not call super().__init__(); let it be its first line"
    assert (found.returncode, found.stderr) == (2, f"purebench: {line}\n")
    with pytest.raises(UserError, match=re.escape(line)):
        benchmark(load_object(f"{tmp_path / 'forgetful.py'}:{name}")(), 2, eps="1/5")


def test_a_certificate_without_steps_says_so(capsys):
    from bench.cli.main import main

    assert main(["certify", "adp", "--set", "steps=0"]) == 0
    assert "passed on 4 images, 0 steps in float64" in capsys.readouterr().out
