"""Compositions as boards write them: every gradient mode declared, and batches of which a gate purifies some."""

import models
import pytest
import torch
from models import seeded

from defenses import load_model
from defenses.core.noise import Noise
from defenses.core.purify import purify
from defenses.data.dataset import load_dataset
from defenses.utils.errors import UserError
from defenses.zoo.assembly import composed
from defenses.zoo.cards import card
from defenses.zoo.checkpoints import load_network, weights_hash
from defenses.zoo.composition import KEYS
from defenses.zoo.registry import gradients_of, parts

STEPPED = {"filters": [{"name": "adp", "steps": 2}], "steps": 3}
GATED = {"detector": "score-norm", "suspected": "purify"}
USER_MODULE = f"{models.__file__}:Net"  # as RobustBench's and timm's are: a plain module
COMPOSITIONS = {
    "filter": ("adp", {"filters": ["bit-depth"], "steps": 3}),
    "filter with a gradient": ("diffpure", {"filters": ["median"], "steps": 3}),
    "filter with a network": ("adp", {"filters": ["jpeg"], "steps": 3}),
    "filter without a gradient": ("bit-depth", {}),
    "stepped filter": ("diffpure", STEPPED),
    "two stepped filters": ("magnet", {"filters": [{"name": "adp", "steps": 2}, "gaussian-noise", "defense-vae"]}),
    "no image on its way": ("defense-gan", {"filters": [{"name": "adp", "steps": 2}], "steps": 3, "restarts": 2}),
    "gated": ("adp", {**GATED, "steps": 3}),
    "gated with a level": ("adp", {**GATED, "steps": 3, "level": "1/5"}),
    "gated network": ("jpeg", GATED),
    "gated chain": ("diffpure", {**STEPPED, **GATED}),
    "gated chain with a network": ("magnet", {**GATED, "filters": ["jpeg"]}),
    "guarded": ("adp", {"detector": "score-norm", "steps": 3}),
    "guarded chain": ("diffpure", {**STEPPED, "detector": "magnet-jsd"}),
    "user classifier": ("gdmp", {"filters": ["median"], "classifier": USER_MODULE}),
    "user classifier behind a gate": ("diffpure", {**STEPPED, **GATED, "classifier": USER_MODULE}),
    "two runs": ("diffpure", {**STEPPED, "runs": 2}),
    "logit-mean": ("diffpure", {**STEPPED, **GATED, "runs": 2, "combine": "logit-mean"}),
    "fitted backward": ("adp", {"autoencoder": "magnet", "steps": 3}),
    "fitted backward of a gate": ("adp", {**GATED, "autoencoder": "magnet", "steps": 3}),
    "classifier with a filter": ("pgd-at", {"filters": ["magnet", "gaussian-noise"], "runs": 2}),
}


def loaded(name):
    defense, params = COMPOSITIONS[name]
    if params.get("classifier") != USER_MODULE:
        return load_model(defense, "digits", **params)
    inner = load_model(defense, "digits", **{k: v for k, v in params.items() if k not in KEYS}).purifier
    return composed(defense, inner, {k: v for k, v in params.items() if k in KEYS}, parts("digits", None, None))


def mixed(clean=3, others=3):
    """Clean images, and others that detectors suspect."""
    x = load_dataset("digits", "validation").x[:clean]
    return torch.cat([x, seeded(others, 1, 8, 8).abs().clamp(0, 1)])


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_every_declared_mode_has_a_gradient(name):
    defense = loaded(name)
    x, noise = mixed(), Noise.of(0, 6)
    deployed = defense.logits(x, noise)
    for mode in defense.gradients:
        leaf = x.clone().requires_grad_()
        logits = defense.logits(leaf, noise, gradient=mode)
        (gradient,) = torch.autograd.grad(logits.log_softmax(1)[:, 0].sum(), leaf)
        assert gradient.isfinite().all(), mode
        assert (gradient.flatten(1).abs().sum(1) > 0).all(), mode
        if mode not in ("blind", "surrogate"):
            torch.testing.assert_close(logits.detach(), deployed, rtol=1e-3, atol=1e-4, msg=mode)


def test_what_stands_for_a_part_stands_for_the_whole():
    for name in ("filter with a network", "gated network", "gated chain with a network"):
        assert "bpda-autoencoder" in loaded(name).gradients, name
    for name in ("fitted backward", "fitted backward of a gate"):
        assert "bpda-autoencoder" in loaded(name).gradients, name
    for name in ("stepped filter", "gated chain"):
        assert {"forward-noise", "bpda-denoiser"} <= set(loaded(name).gradients), name
    assert not {"forward-noise", "bpda-denoiser"} & set(loaded("no image on its way").gradients)


@pytest.mark.parametrize("name", ["gated", "gated chain", "gated chain with a network", "logit-mean"])
def test_images_of_a_mixed_batch_are_judged_as_alone(name):
    defense, x, noise = loaded(name), mixed(), Noise.of(0, 6)
    suspected = defense.purifier.suspects(x)
    assert suspected[3:].all()
    assert not suspected[:3].all()
    together = defense.decide(x, noise).logits
    for mode in (None, *(m for m in defense.gradients if m in ("exact", "bpda-denoiser", "forward-noise"))):
        found, alone = [], []
        for rows in (slice(None), *(slice(i, i + 1) for i in range(6))):
            if mode is None:
                alone.append(defense.decide(x[rows], noise.rows(rows)).logits)
                continue
            leaf = x[rows].clone().requires_grad_()
            logits = defense.logits(leaf, noise.rows(rows), gradient=mode)
            alone.append(logits.detach())
            found.append(torch.autograd.grad(logits.log_softmax(1)[:, 0].sum(), leaf)[0])
        torch.testing.assert_close(torch.cat(alone[1:]), together, rtol=1e-3, atol=1e-4)
        if mode is not None:
            scale = float(found[0].abs().max())
            torch.testing.assert_close(torch.cat(found[1:]) / scale, found[0] / scale, rtol=1e-3, atol=1e-3)


def test_the_identity_in_the_place_of_steps_leaves_finish_and_start():
    """Of 1.5 x, steps, x / 2 + .1 twice in turn only the 3/4 of each is left of the gradient."""
    from linear_purifier import Affine, X, linear

    from defenses.core.chain import Chain
    from defenses.core.defense import Purified

    net = linear()
    defense = Purified(Chain([Affine(), Affine(3)]), net)
    leaf = X.clone().requires_grad_()
    logits = defense.logits(leaf, Noise.of(0, len(X)), gradient="forward-noise")
    (found,) = torch.autograd.grad(logits[:, 0].sum(), leaf)
    torch.testing.assert_close(found.flatten(1), 0.75**2 * net.network[1].weight[:1].expand(len(X), -1))
    assert torch.equal(logits, defense.logits(X, Noise.of(0, len(X))))
    one = defense.logits(leaf, Noise.of(0, len(X)), gradient="bpda-denoiser")
    (found,) = torch.autograd.grad(one[:, 0].sum(), leaf)
    both = 0.75**2 * defense.purifier.parts[1].single @ defense.purifier.parts[0].single
    torch.testing.assert_close(found.flatten(1), net.network[1].weight[:1].expand(len(X), -1) @ both)


def test_a_fitted_backward_goes_through_the_named_network():
    """The value is the purifier's; the gradient at its image is led back through the autoencoder."""
    defense, x, noise = load_model("adp", "digits", autoencoder="magnet", steps=3, runs=1), mixed(), Noise.of(0, 6)
    leaf = x.clone().requires_grad_()
    logits = defense.logits(leaf, noise, gradient="bpda-autoencoder")
    (found,) = torch.autograd.grad(logits[:, 0].sum(), leaf)
    at = purify(defense.purifier, x, noise.copies(1)).requires_grad_()
    (outer,) = torch.autograd.grad(defense.classifier.logits(at, noise)[:, 0].sum(), at)
    leaf = x.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(load_network("magnet", "digits")(leaf), leaf, outer)
    torch.testing.assert_close(found, wanted)


def test_the_fitted_network_is_part_of_the_fingerprint():
    plain, fitted = (
        load_model("adp", "digits", **more).provenance.fingerprint for more in ({}, {"autoencoder": "magnet"})
    )
    assert fitted["weights"].items() - plain["weights"].items() == {("magnet", weights_hash("magnet", "digits"))}
    assert gradients_of(card("adp"), "digits", {"autoencoder": "magnet"}, weights_root=None, training_seed=None)[
        -1
    ] == ("bpda-autoencoder")


@pytest.mark.parametrize(
    ("name", "params", "words"),
    [
        ("adp", {"autoencoder": "magnetic"}, "magnetic"),
        (
            "adp",
            {"autoencoder": "undefended"},
            "undefended.safetensors is of network .*a classifier; it must be an autoencoder",
        ),
        ("adp", {"autoencoder": 3}, "autoencoder is 3"),
        ("pgd-at", {"autoencoder": "magnet"}, "no parameter|unknown parameter"),
    ],
)
def test_what_cannot_stand_in_for_a_purifier_is_refused(name, params, words):
    with pytest.raises(UserError, match=words):
        load_model(name, "digits", **params)


def test_the_weights_of_a_reformer_are_its_own_unless_others_are_named():
    own, other = (
        load_model("magnet", "digits", **more).provenance.fingerprint for more in ({}, {"reformer": "defense-vae"})
    )
    assert own["parameters"] == {"classifier": "undefended"}
    assert own["weights"].keys() == {"magnet", "undefended"}
    assert other["parameters"] == {"classifier": "undefended", "reformer": "defense-vae"}
    assert other["weights"].keys() == {"defense-vae", "undefended"}


def test_a_purifier_of_ones_own_keeps_its_parameter(tmp_path):
    """A class with a parameter of the name of a key that came later gets it itself."""
    (tmp_path / "own.py").write_text(
        "import defenses\n\n\nclass Own(defenses.Purifier):\n    steps = 0\n\n"
        "    def __init__(self, autoencoder):\n        super().__init__()\n        self.kept = autoencoder\n\n"
        "    def start(self, x, z):\n        return {'u': x}, {}\n\n"
        "    def step(self, state, ctx, k, z):\n        return state\n\n"
        "    def finish(self, state, ctx):\n        return state['u']\n"
    )
    defense = load_model(f"{tmp_path}/own.py:Own", "digits", classifier="undefended", autoencoder="narrow")
    assert defense.purifier.kept == "narrow"
    assert "bpda-autoencoder" not in defense.gradients
