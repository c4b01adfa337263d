"""Test presets: the cells that they run, their refusals, and how tables and commands name them."""

import json
import tomllib

import pytest
import torch
from boards import ROOT, purebench_here, write_board
from linear_purifier import Shift

from bench.analysis.results import load_cells
from bench.attacks.base import Unsupported
from bench.attacks.bpda_eot import bpda_eot
from bench.attacks.registry import find_attack
from bench.board.from_names import board_of_names
from bench.board.load import load_board
from bench.board.presets import find_preset, preset_names, with_preset
from bench.board.schema import check
from bench.evaluation.view import attack_view
from bench.spec.threat import ThreatModel
from bench.spec.view import ViewSpec
from defenses.core.defense import Classifier, Purified
from defenses.core.noise import Draw, Noise
from defenses.utils.errors import UserError
from defenses.utils.parameters import decode

PUBLISHED = ("adp-paper", "ebm-paper", "croce2022", "lee-kim2023", "diffpure", "diffbreak", "robustbench")
PUBLISHED += ("mefa", "diffhammer", "liu-wei", "addt", "gdmp-paper")
ELSEWHERE = ("defense-gan-paper", "jem-paper", "gan-at-paper", "fgsm-paper")  # of other radii than 8/255 on CIFAR-10
TRANSFER = ("autoattack:apgd-ce", "blind", 1, None, "fresh")
RAW = {"dataset": "digits", "threat": {"eps": "1/5"}, "defense": [{"name": "adp"}]}


def board(preset, *defenses, dataset="digits", eps="1/5", **more):
    return board_of_names(preset=preset, dataset=dataset, defenses=defenses or ("adp",), eps=eps, **more)


def rows(loaded, defense="adp"):
    cells = [c for c in loaded.cells() if c.defense.label == defense and c.attack.name not in ("none", "uniform")]
    return {(c.attack.name, c.view.gradient, c.view.eot, c.view.runs, c.view.seed) for c in cells}


def params(loaded, name):
    return next(decode(c.attack.params) for c in loaded.cells() if c.attack.name == name)


def test_the_presets_that_there_are():
    assert set(preset_names()) == {*PUBLISHED, *ELSEWHERE, "standard"}
    for name in (*PUBLISHED, *ELSEWHERE):
        preset = find_preset(name)
        assert preset.differs
        assert preset.source
        assert preset.summary
        assert "\n" not in preset.differs
        assert preset.norms[0] == "Linf"
        assert name in ELSEWHERE or preset.eps["cifar10"]["Linf"] == "8/255"
        assert "threat" not in preset.parts


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("croce2022", {("bench:apgd", "exact", 1, 1, "fresh")}),
        ("lee-kim2023", {("foolbox:LinfPGD", mode, 20, 1, "fresh") for mode in ("surrogate", "exact")}),
        ("diffpure", {("autoattack:rand", "exact", 1, None, "fresh")}),
        ("diffbreak", {("autoattack:apgd-ce-best-loss", "exact", 10, 1, "fresh")}),
        ("ebm-paper", {("bench:bpda-eot", "bpda", 15, 1, "fresh")}),
        ("mefa", {("foolbox:LinfPGD", mode, 20, 1, "fresh") for mode in ("exact", "bpda")}),
        ("diffhammer", {("bench:apgd", mode, 1, 1, "fresh") for mode in ("exact", "bpda")}),
        ("liu-wei", {("foolbox:LinfPGD", "exact", 1, None, "known"), ("foolbox:LinfPGD", "exact", 20, 1, "fresh")}),
        ("addt", {("foolbox:LinfPGD", "exact", 10, 1, "fresh"), ("foolbox:LinfPGD", "exact", 1, None, "known")}),
        ("gdmp-paper", {("foolbox:LinfPGD", "blind", 1, None, "fresh")}),
        ("defense-gan-paper", {("foolbox:LinfFastGradientAttack", "blind", 1, None, "fresh")}),
        ("jem-paper", {("foolbox:LinfPGD", "bpda", 1, None, "fresh")}),
        (
            "adp-paper",
            {("foolbox:LinfPGD", "blind", 1, None, "fresh"), ("foolbox:LinfPGD", "joint-full", 1, 15, "fresh")}
            | {("foolbox:LinfPGD", mode, 15, 1, "fresh") for mode in ("bpda", "joint-score")},
        ),
    ],
)
def test_what_a_preset_runs(name, wanted):
    assert rows(board(name)) == wanted | {TRANSFER}


@pytest.mark.parametrize("name", [*PUBLISHED, *ELSEWHERE, "standard"])
def test_every_preset_has_the_null_attacks_of_every_table(name):
    loaded = board(name, "pgd-at", "undefended")
    cells = {(c.defense.label, c.attack.label): c for c in loaded.cells()}
    assert {label for of, label in cells if of == "pgd-at"} > {"none", "uniform", "transfer"}
    assert cells["pgd-at", "transfer"].surrogate.label == "undefended"
    assert ("undefended", "transfer") not in cells  # its own images would be plain white box


def test_the_numbers_of_the_papers():
    croce = params(board("croce2022"), "bench:apgd")
    assert croce == {"steps": 10, "losses": ["margin"], "eot": 200, "decided": 0.0}
    assert board("croce2022").protocols.m == (5, 10, 15)
    lee_kim = params(board("lee-kim2023"), "foolbox:LinfPGD")
    assert lee_kim["rel_stepsize"] * 8 / 255 == pytest.approx(0.007, abs=1e-12)  # in its code
    assert (lee_kim["steps"], lee_kim["random_start"]) == (200, False)
    screened = params(board("ebm-paper"), "bench:bpda-eot")
    assert (screened["steps"], screened["verify"]) == (50, 150)
    assert screened["rel_stepsize"] == params(board("adp-paper"), "foolbox:LinfPGD")["rel_stepsize"] == 0.25
    assert (board("diffbreak").protocols.m, board("diffbreak").protocols.k) == ((10, 20), 11)
    assert {c.attack.name for c in board("diffpure", "pgd-at").cells()} == {"none", "uniform", "autoattack:standard"}


def test_standard():
    loaded = board("standard", "adp", "pgd-at", "undefended", norm="L2")
    assert loaded.verdict.draws == 65
    assert str(loaded.threats[0]) == "L2 1/5"
    names = {name for name, *_ in rows(loaded)}
    assert names >= {"bench:adaptive", "autoattack:square", "autoattack:apgd-ce-best-loss"}
    assert ("autoattack:apgd-ce", "exact", 1, None, "known") in rows(loaded)
    transfer = {
        c.defense.label: c.surrogate and c.surrogate.label for c in loaded.cells() if c.attack.label == "transfer"
    }
    assert transfer == {"adp": None, "pgd-at": "undefended"}
    find_attack("bench:adaptive")


def test_on_its_own_data_set_a_preset_brings_eps_and_images():
    raw, preset = with_preset({"dataset": "cifar10", "preset": "croce2022", "defense": [{"name": "adp"}]})
    assert raw["threat"] == {"norm": "Linf", "eps": "8/255"}
    assert raw["indices"] == "croce-2022"
    check("board", raw)
    threat = {"eps": "16/255"}
    raw, _ = with_preset({"dataset": "cifar10", "preset": preset.name, "threat": threat, "indices": "first-5"})
    assert raw["threat"] == {"norm": "Linf", "eps": "16/255"}
    assert raw["indices"] == "first-5"
    assert with_preset(RAW) == (RAW, None)
    for name in preset_names():
        check("board", with_preset({**RAW, "preset": name})[0])


@pytest.mark.parametrize(
    ("dataset", "norm", "eps"),
    [
        ("cifar10", "Linf", "8/255"),
        ("cifar10", "l2", "1/2"),
        ("cifar100", "Linf", "8/255"),
        ("imagenet", "Linf", "4/255"),
        ("imagenet/Crop288", "Linf", "4/255"),
    ],
)
def test_robustbench_has_the_eps_of_its_leaderboards(dataset, norm, eps):
    raw, _ = with_preset({"dataset": dataset, "preset": "robustbench", "threat": {"norm": norm}})
    assert raw["threat"] == {"norm": norm, "eps": eps}
    assert raw["indices"] == "robustbench"
    raw, _ = with_preset({"dataset": "digits", "preset": "robustbench", "threat": {"norm": norm, "eps": "1/5"}})
    assert raw["threat"]["eps"] == "1/5"
    assert "indices" not in raw


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"threat": {}}, "has eps 8/255 for cifar10 (Linf) alone; for digits (Linf) say it: --eps 1/5"),
        ({"dataset": "cifar100", "threat": {"norm": "L2"}, "preset": "robustbench"}, "for cifar100 (L2) say it"),
        ({"dataset": "imagenet-c/fog/3", "threat": {}, "preset": "robustbench"}, "for imagenet-c/fog/3 (Linf) say it"),
        ({"threat": {"norm": "L2", "eps": "1/2"}}, "protocol of Linf and not of L2"),
        ({"preset": "croce"}, "did you mean croce2022"),
        ({"preset": "standard", "threat": {}}, "has no eps of its own"),
        ({"attack": []}, '"attack" is what the preset "croce2022" says'),
        ({"verdict": {"draws": 5}}, '"verdict" is what the preset'),
    ],
)
def test_a_preset_that_does_not_fit(change, words):
    with pytest.raises(UserError) as caught:
        with_preset({**RAW, "preset": "croce2022", **change})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_in_a_board(tmp_path):
    path = write_board(tmp_path)
    text = path.read_text().partition("[verdict]")[0]
    defense = f'[[defense]]\nname = "{tmp_path / "models.py"}:noisy"\nlabel = "noisy"\n'
    path.write_text('preset = "diffbreak"\n' + text + defense)
    loaded = load_board(path)
    assert loaded.preset.name == "diffbreak"
    assert loaded.verdict.draws == 21
    assert loaded.block == 20
    assert rows(loaded, "noisy") == {("autoattack:apgd-ce-best-loss", "exact", 10, 1, "fresh"), TRANSFER}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--preset", "croce2022", "--defense", "adp", "--dataset", "digits"], "--eps 1/5"),
        (["--preset", "croce2022", "--defense", "adp"], "without a board, --dataset is needed"),
        (["--preset", "croce2022", "--dataset", "digits"], "without a board, --defense is needed"),
        (["--preset", "robustbench", "--defense", "pgd-at", "adp", "--dataset", "digits", "--eps", "1/5"], '"adp" is'),
        (["quickstart", "--preset", "croce2022"], "both given"),
        (["quickstart", "--eps", "1/5"], "--eps is for a run without a board"),
        ([], "name a board"),
    ],
)
def test_commands_that_are_refused_before_any_work(tmp_path, arguments, words):
    for command in ("run", "plan"):
        done = purebench_here(command, *arguments, "--out", tmp_path / "out")
        assert done.returncode == 2
        assert words in done.stderr
        assert done.stderr.count("\n") == 1
        assert not (tmp_path / "out").exists()


def test_a_run_by_preset_says_whose_protocol_it_is(tmp_path):
    out, selected = tmp_path / "out", ["--defense", "undefended", "--dataset", "digits", "--indices", "first-6"]
    how = ["--eps", "1/5", "--workers", "0", "--out", out]
    done = purebench_here("run", "--preset", "robustbench", *selected, *how)
    assert done.returncode == 0, done.stderr
    preset = find_preset("robustbench")
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["board"] == "robustbench-digits-undefended"
    assert manifest["preset"] == {"name": "robustbench", "source": preset.source, "differs": preset.differs}
    for ending in ("txt", "md", "html"):
        text = " ".join((out / f"tables.{ending}").read_text().split())
        assert "preset robustbench" in text
        assert "RobustBench: AutoAttack has a seed" in text


def test_ls_tells_them():
    done = purebench_here("ls", "presets")
    assert done.returncode == 0
    for name in preset_names():
        assert f"  {name} " in done.stdout
        assert f"  {find_preset(name).summary}\n" in done.stdout
        assert find_preset(name).differs in purebench_here("show", name).stdout


def test_presets_come_along():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "leaderboards" in json.dumps(project["tool"])
    assert all((ROOT / "leaderboards/presets" / f"{name}.toml").is_file() for name in preset_names())


def noisy(sigma):
    """Class 1 where x_0 > 1/2, under noise."""
    layer = torch.nn.Linear(2, 2)
    layer.weight.data = torch.tensor([[0.0, 0.0], [20.0, 0.0]])
    layer.bias.data = torch.tensor([0.0, -10.0])
    network = torch.nn.Sequential(torch.nn.Flatten(), layer).eval()
    return Purified(Shift(sigma), Classifier(network, num_classes=2, input_shape=(1, 1, 2)), combine="logit-mean")


def screened(sigma, x, *, eot=15, threat=None, target=None, **more):
    y, threat = (x[:, 0, 0, 0] > 0.5).long(), threat or ThreatModel("Linf", "1/10")
    with attack_view(noisy(sigma), ViewSpec("bpda", eot=eot, runs=1), seed=1) as (view, _):
        adv = bpda_eot(view, x, y, threat=threat, target=target, seed=3, indices=torch.arange(len(x)), **more)
        return adv, y, view.queries


def test_screening_breaks_what_a_linear_attack_can():
    """Without noise it breaks exactly the images within eps of the boundary, stays in the ball, and stops early."""
    x = Noise.of(0, 200).draw(Draw((1, 1, 2), "uniform"))
    adv, y, queries = screened(1e-6, x, steps=20, verify=3)
    assert torch.equal((adv[:, 0, 0, 0] > 0.5).long() != y, (x[:, 0, 0, 0] - 0.5).abs() < 0.1)
    assert ((adv - x).abs() <= 0.1 + 1e-6).all()
    assert adv.min() >= 0
    assert adv.max() <= 1
    broken = ((adv[:, 0, 0, 0] > 0.5).long() != y).sum()
    assert queries < 21 * (200 - broken) + 12 * broken


def test_a_lucky_miss_does_not_pass_verification():
    """Single noisy draws often misclassify images out of reach: 400 replicates correct that, and the steps go on."""
    x = torch.full((64, 1, 1, 2), 0.75)
    adv, _, _ = screened(0.3, x, eot=1, steps=10, verify=400)
    assert torch.allclose(adv[:, 0, 0, 0], torch.full((64,), 0.65), atol=1e-6)


def test_it_is_reproducible_and_refuses_what_it_is_not():
    x = Noise.of(0, 20).draw(Draw((1, 1, 2), "uniform"))
    assert torch.equal(screened(0.2, x, steps=5)[0], screened(0.2, x, steps=5)[0])
    with pytest.raises(Unsupported):
        screened(0.2, x, threat=ThreatModel("L2", "1"))
    with pytest.raises(Unsupported):
        screened(0.2, x, target=torch.zeros(20, dtype=torch.int64))


OWN = """
import torch
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = torch.nn.Linear(64, 10)
        self.eval()
    def forward(self, x):
        return self.linear((x + 0.1 * torch.randn_like(x)).flatten(1))
"""


def test_attacks_by_name_need_no_board(tmp_path):
    """A random module of the user's beside a registered baseline, in one command."""
    (tmp_path / "own.py").write_text(OWN)
    own = f"{tmp_path}/own.py:Net"
    options = ("--dataset", "digits", "--eps", "1/5", "--indices", "first-10", "--attack", "bench:pgd")
    words = ("--defense", own, "undefended", "--stochastic", *options)
    done = purebench_here("run", *words, "--out", tmp_path / "out", "--workers", 0, "--quiet")
    assert done.returncode == 0, done.stderr
    cells = load_cells(tmp_path / "out")
    assert {"none", "uniform", "transfer", "bench:pgd"} == set(cells["attack"])
    assert set(cells["status"]) == {"ok"}
    assert dict(zip(cells["defense"], cells["stochastic"], strict=True)) == {"own.py:Net": True, "undefended": False}
    for command in ("plan", "status"):
        shown = purebench_here(command, *words, "--out", tmp_path / "out")
        assert shown.returncode == 0, shown.stderr
        assert str(len(cells)) in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--defense", "pgd-at", "--dataset", "digits", "--attack", "bench:pgd"], "the radius is missing; give it, as"),
        (["--defense", "pgd-at", "--dataset", "digits", "--eps", "1/5"], "attacks are needed; add --attack"),
        (["--defense", "pgd-at", "--attack", "bench:pgd", "--eps", "1/5"], "--dataset is needed"),
        (["--attack", "bench:pgd", "--eps", "1/5", "--dataset", "digits"], "--defense is needed"),
        (["--defense", "pgd-at", "--dataset", "digits", "--eps", "1/5", "--attack", "bench:pdg"], "did you mean"),
    ],
)
def test_a_run_of_names_that_is_refused(tmp_path, arguments, words):
    done = purebench_here("run", *arguments, "--out", tmp_path / "out")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert words in line
    assert not (tmp_path / "out").exists()


def test_null_attacks_alone_are_a_board():
    """Somebody who only asks for clean accuracy names "none"."""
    for attack in ("none", "uniform", "transfer"):
        board = board_of_names(dataset="digits", defenses=["adp"], attacks=[attack], eps="1/5")
        assert {c.attack.name for c in board.cells()} >= {"none", "uniform"}
    both = board_of_names(dataset="digits", defenses=["pgd-at"], attacks=["none", "autoattack:apgd-ce"], eps="1/5")
    assert {c.attack.name for c in both.cells()} == {"none", "uniform", "autoattack:apgd-ce"}
