"""Certificates of randomised smoothing against their closed forms, and what is kept of them."""

import json
from statistics import NormalDist

import numpy as np
import pytest
import torch
from scipy.stats import binom
from torch import nn

from bench.cli.main import main
from bench.store.jsonl import read
from bench.store.manifest import read_manifest
from bench.tracks.smoothing.certify import ABSTAIN, CertificationProtocol, certified, check_form, radius_of
from bench.tracks.smoothing.noisy_defense import noisy
from bench.tracks.smoothing.tables import RADII, load_smoothing
from defenses import load_model
from defenses.core.chain import Chain
from defenses.core.defense import Classifier, Purified, UserModule
from defenses.core.noise import Noise
from defenses.data.dataset import load_dataset
from defenses.filters.bit_depth import BitDepth
from defenses.filters.gaussian_noise import GaussianNoise
from defenses.training.recipe import load_recipe
from defenses.training.train import train
from defenses.utils.errors import UserError

SIGMA = 0.5


def halfspace(*, runs: int = 1) -> Purified:
    """Class 1 where the sum of 16 pixels is above 8; the distance of x to it is |sum - 8| / 4."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    with torch.no_grad():
        network[1].weight.copy_(torch.stack((torch.zeros(16), torch.ones(16))))
        network[1].bias.copy_(torch.tensor([0.0, -8.0]))
    inner = Classifier(network, num_classes=2, input_shape=(1, 4, 4))
    return Purified(GaussianNoise(sigma=SIGMA), inner, runs=runs)


def images(*distances: float) -> torch.Tensor:
    """Images at so far from the boundary, on the side of class 1 where positive."""
    return torch.stack([torch.full((1, 4, 4), 0.5 + d / 4) for d in distances])


def test_the_radius_converges_to_the_distance_of_a_linear_classifier():
    distances = [0.2, -0.4, 0.8, -1.0]
    for n, share in ((2_000, 0.55), (200_000, 0.97)):
        found = list(
            certified(halfspace(), images(*distances), torch.arange(4), CertificationProtocol(SIGMA, n=n), batch=20_000)
        )
        assert [f.prediction for f in found] == [1, 0, 1, 0]
        for f, d in zip(found, distances, strict=True):
            assert share * abs(d) < f.radius <= abs(d) or (n < 10_000 and f.radius <= abs(d))


def test_on_the_boundary_it_abstains():
    (found,) = certified(halfspace(), images(0.0), torch.tensor([7]), CertificationProtocol(SIGMA, n=5000))
    assert found.prediction == ABSTAIN
    assert found.radius == 0
    assert found.count == pytest.approx(2500, abs=200)


@pytest.mark.parametrize("p", [0.3, 0.5, 0.51, 0.7, 0.99, 0.9999])
@pytest.mark.parametrize(("n", "alpha"), [(30, 0.05), (400, 0.001)])
def test_a_certificate_is_wrong_no_more_often_than_it_says(p, n, alpha):
    """Exact over all counts: how often is the radius above the true one, sigma times the quantile of p?"""
    protocol = CertificationProtocol(SIGMA, n=n, alpha=alpha)
    truth = SIGMA * NormalDist().inv_cdf(p)
    counts = np.arange(n + 1)
    found = [radius_of(0, int(k), protocol) for k in counts]
    wrong = np.array([f.prediction != ABSTAIN and f.radius > truth for f in found])
    assert binom.pmf(counts, n, p)[wrong].sum() <= alpha
    if p == 0.5:
        abstains = np.array([f.prediction == ABSTAIN for f in found])
        assert binom.pmf(counts, n, p)[abstains].sum() >= 1 - alpha


def test_coverage_by_simulation():
    protocol, d = CertificationProtocol(SIGMA, n0=10, n=100, alpha=0.1), 0.3
    found = certified(halfspace(), images(*[d] * 1500), torch.arange(1500), protocol)
    wrong = [f.radius > d or f.prediction == 0 for f in found]
    assert 0.02 < sum(wrong) / 1500 < 0.1 + 3 * (0.1 * 0.9 / 1500) ** 0.5


def test_no_radius_is_beyond_the_largest():
    protocol = CertificationProtocol(SIGMA, n=1000)
    assert radius_of(3, 1000, protocol).radius == pytest.approx(protocol.largest)
    assert CertificationProtocol(SIGMA, n=2).largest == 0


def test_counts_depend_on_neither_batch_nor_company_nor_runs():
    protocol, x = CertificationProtocol(SIGMA, n=3000), images(0.2, 0.5, -0.3)
    whole = list(certified(halfspace(), x, torch.arange(3), protocol, batch=700))
    assert whole == list(certified(halfspace(runs=10), x, torch.arange(3), protocol, batch=3000))
    assert [whole[2]] == list(certified(halfspace(), x[2:], torch.tensor([2]), protocol))
    assert whole != list(certified(halfspace(), x, torch.arange(3), protocol, seed=1))


def test_what_does_not_begin_with_the_noise_is_refused():
    inner = halfspace().classifier
    check_form(Purified(Chain([GaussianNoise(sigma=SIGMA), BitDepth(bits=3)]), inner), SIGMA)
    for wrong, message in [
        (inner, "a Classifier does not begin with Gaussian noise"),
        (UserModule(inner, stochastic=True), "a module of your own"),
        (Purified(Chain([BitDepth(bits=3), GaussianNoise(sigma=SIGMA)]), inner), "put that filter first"),
        (Purified(GaussianNoise(sigma=0.25), inner), "noise of sigma 0.5"),
    ]:
        with pytest.raises(UserError, match=message):
            check_form(wrong, SIGMA)


def test_noise_stands_before_any_composition():
    own = {"filters": [{"name": "gaussian-noise", "sigma": 0.25}]}
    assert noisy("smoothing", "digits", {}, None) == ("smoothing", own, 0.25)
    assert noisy("smoothing", "digits", {}, 0.5)[2] == 0.5
    assert noisy("gaussian-noise", "digits", {"classifier": "pgd-at"}, None)[2] == 0.1
    name, params, sigma = noisy("adp", "digits", {"filters": ["jpeg"], "steps": 2}, 0.1)
    assert params["filters"] == [{"name": "gaussian-noise", "sigma": 0.1}, {"name": "jpeg"}]
    check_form(load_model(name, "digits", **params), sigma)
    name, params, _ = noisy("robustbench:Wong2020Fast", "cifar10", {}, 0.25)
    assert (name, params["classifier"]) == ("gaussian-noise", "robustbench:Wong2020Fast")
    with pytest.raises(UserError, match="say how much: --sigma 1/4"):
        noisy("adp", "digits", {}, None)
    with pytest.raises(UserError, match="certify it in Python"):
        noisy("own.py:Model", "digits", {}, 0.25)


def smooth(*arguments: str) -> int:
    return main(["smooth", "smoothing", "--n", "300", "--quiet", *arguments])


def test_runs_go_on_where_they_ended(tmp_path, capsys):
    out = ["--out", str(tmp_path)]
    assert smooth("--indices", "first-6", *out) == 0
    whole = read(tmp_path / "sigma-1_4.jsonl")[1]
    file = tmp_path / "sigma-1_4.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:4]) + lines[4][:30])  # the power went while a line was written
    assert smooth("--indices", "first-6", *out) == 0
    again = read(file)[1]
    for entries in (whole, again):
        for entry in entries.values():
            del entry["seconds"]
    assert again == whole
    assert {e["n"] for e in whole.values()} == {300}
    found = {r["radius"]: r for r in load_smoothing(tmp_path).to_dict("records")}
    assert list(found) == list(RADII)
    assert found["0"]["certified"] >= found["1/4"]["certified"] >= found["1"]["certified"] == 0
    assert found["1"]["low"] == 0 < found["1"]["high"]
    text = capsys.readouterr().out
    assert "r = 1/4" in text
    assert (tmp_path / "tables.csv").read_text().startswith("sigma,radius,n,alpha,images,abstained,certified,low,high")
    assert "| 1/4" in (tmp_path / "tables.md").read_text()


def test_the_manifest_names_every_run_that_computed(tmp_path):
    for indices, sigmas in (("first-1", ["1/4"]), ("first-1", ["1/4"]), ("first-2", ["1/4", "1/2"])):
        assert smooth("--indices", indices, "--sigma", *sigmas, "--out", str(tmp_path)) == 0
    content = read_manifest(tmp_path)
    assert len(content["runs"]) == 2
    assert all(r["finished"] and r["versions"]["torch"] for r in content["runs"])
    assert (content["board"], content["indices"], content["seed"]) == ("smooth-digits-smoothing", "first-2", 0)
    filters = [f["parameters"]["filters"] for f in content["defenses"].values()]
    assert [f[0]["sigma"] for f in filters] == ["1/2", "1/4"]  # in the manifest by title
    assert main(["smooth", "gaussian-noise", "--n", "9", "--out", str(tmp_path)]) == 2


def test_several_sigmas_make_several_rows(tmp_path):
    assert smooth("--indices", "first-3", "--sigma", "0.1", "1/2", "--out", str(tmp_path)) == 0
    assert [json.loads(f.open().readline())["about"]["sigma"] for f in sorted(tmp_path.glob("*.jsonl"))] == [0.1, 0.5]
    assert set(load_smoothing(tmp_path)["sigma"]) == {0.1, 0.5}


def test_the_table_tells_the_chance_of_each_sigma(tmp_path, capsys):
    for sigma, alpha in (("0.1", "0.2"), ("1/2", "0.001")):
        assert smooth("--indices", "first-1", "--sigma", sigma, "--alpha", alpha, "--out", str(tmp_path)) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "wrong with a chance of at most 0.2 (sigma 1/10), 0.001 (sigma 1/2)." in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--alpha", "2"], "alpha is 2.0; it must lie between 0 and 1"),
        (["--sigma", "much"], 'sigma "much" is no number'),
        (["--sigma", "0"], "sigma is 0.0; it must be above 0"),
        (["--radii", "-1"], 'radius "-1" is no number'),
        (["--indices", "first-9000"], "wants 9000 images"),
        (["--set", "sigmaa=1"], "unknown parameter of smoothing"),
    ],
)
def test_bad_input_is_one_clear_line(arguments, message, tmp_path, capsys):
    assert smooth("--indices", "first-1", "--out", str(tmp_path), *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_other_work_and_damage_are_refused(tmp_path, capsys):
    out = ["--indices", "first-2", "--out", str(tmp_path)]
    assert smooth(*out) == 0
    assert smooth("--seed", "1", *out) == 2
    assert 'is of other work (its "seed" differs)' in capsys.readouterr().err
    file = tmp_path / "sigma-1_4.jsonl"
    file.write_text(file.read_text().replace('{"key": "0"', '{"kex": "0"'))
    assert smooth(*out) == 2
    assert "line 2 is damaged" in capsys.readouterr().err


def test_a_short_training_under_noise_learns(tmp_path):
    phases = [{"until": 400, "optimizer": "adam", "lr": 1e-3}]
    change = {"unit": "steps", "validate_every": 100, "phases": phases, "batch": 32}
    train("smoothing", "digits", out=tmp_path / "digits", overrides=change, device="cpu", progress=False)
    assert under_noise("smoothing", weights_root=tmp_path) >= 0.85


def under_noise(classifier: str, **given: object) -> float:
    """Validation accuracy of one draw of noise of .25."""
    data = load_dataset("digits", "validation")
    defense = load_model("gaussian-noise", "digits", sigma=0.25, classifier=classifier, **given)
    return float((defense.logits(data.x, Noise.of(3, len(data))).argmax(1) == data.y).float().mean())


def test_shipped_weights_were_trained_for_their_noise():
    assert load_recipe("smoothing", "digits").objective["sigma"] == load_model("smoothing").purifier.sigma
    trained = load_model("smoothing")
    data = load_dataset("digits", "validation")
    said = trained.logits(data.x, Noise.of(3, len(data))).argmax(1)
    assert float((said == data.y).float().mean()) > 0.92 > under_noise("undefended") + 0.02


def test_a_recipe_without_noise_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"objective\.sigma is 0; it must be a number above 0"):
        train("smoothing", "digits", out=tmp_path, overrides={"objective.sigma": 0}, device="cpu", progress=False)


def test_the_noise_trained_classifier_stands_behind_any_purifier():
    """By its name it is the network alone: the noise is where the composition puts it."""
    data = load_dataset("digits", "validation")
    own, noise = load_model("smoothing"), Noise.of(0, 5)
    behind = load_model("gaussian-noise", sigma=0.25, classifier="smoothing")
    assert torch.equal(own.logits(data.x[:5], noise), behind.logits(data.x[:5], noise))
    name, params, sigma = noisy("adp", "digits", {"classifier": "smoothing", "steps": 1}, 0.25)
    check_form(load_model(name, "digits", **params), sigma)
    assert not load_model("smoothing", filters=[]).stochastic
