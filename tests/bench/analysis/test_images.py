"""The images of an attack: those of the data set, the stored ones, and what the defense makes of them."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
from boards import ROOT
from fake_board import deterministic, failed, line, result, write

from bench import load_images, load_results
from defenses.data import dataset
from defenses.utils.errors import UserError

LINF, GAN = ROOT / "results" / "digits-linf", ROOT / "results" / "digits-gan"
PGD = "foolbox:LinfPGD, 50 steps"


def test_images_and_verdicts_are_those_of_the_run():
    images = load_images(LINF, "adp", PGD, "exact")
    records = load_results(LINF)
    mine = records[(records["defense"] == "adp") & (records["attack"] == PGD) & (records["gradient"] == "exact")]
    mine = mine.set_index("image").loc[images.index]
    digits = dataset.load_dataset("digits", "test")
    assert images.index.tolist() == list(range(500))
    assert (images.clean == digits.x.numpy()).all()
    assert images.labels.tolist() == digits.y.tolist()
    assert images.sha == tuple(sha[:16] for sha in digits.shas)
    assert images.shares.tolist() == mine["accuracy"].tolist()
    sizes = np.abs(images.adversarial.astype(np.float64) - images.clean).reshape(500, -1).max(1)
    assert sizes == pytest.approx(mine["linf"].to_numpy(), abs=1e-6)
    assert (images.adversarial.min(), images.adversarial.max()) == (0, 1)
    right = images.predictions == images.labels
    assert right[images.shares > 0.5].all()
    assert not right[images.shares == 0].any()
    kinds = [getattr(images, name).dtype for name in ("clean", "adversarial", "labels", "predictions", "index")]
    assert kinds == ["float32", "float32", "int64", "int64", "int64"]


def test_indices_choose_images_in_their_order():
    whole, some = load_images(GAN, "pgd-at", "FGSM"), load_images(GAN, "pgd-at", "FGSM", indices=[150, 3])
    assert some.index.tolist() == [150, 3]
    assert len(some) == 2
    for field in dataclasses.fields(some):
        chosen, every = (getattr(images, field.name) for images in (some, whole))
        assert all(np.array_equal(a, every[i]) for a, i in zip(chosen, (150, 3), strict=True))


def test_clean_images_are_stored_as_an_attack_too():
    images = load_images(GAN, "pgd-at", "none")
    assert (images.clean == images.adversarial).all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nix", "FGSM"), 'unknown defense "nix"'),
        (("pgd-at", "nix"), 'unknown attack on pgd-at "nix"'),
        (("pgd-at", "FGSM", "bpda"), 'unknown view of FGSM "bpda"; known: exact'),
        (("pgd-at", "FGSM", None, [3, 700]), "pgd-at, FGSM has no image 700; it has 200 from 0 to 199"),
    ],
)
def test_unknown_names_and_images_are_refused(arguments, words):
    with pytest.raises(UserError) as error:
        load_images(GAN, *arguments)
    assert words in str(error.value)


def test_one_of_several_views_radii_and_trainings_must_be_named(tmp_path):
    with pytest.raises(UserError, match=r"adp, foolbox:LinfPGD, 50 steps has several values of view; give one of"):
        load_images(LINF, "adp", PGD)
    rows = [r for eps in ("1/5", "1/10") for r in deterministic("two", eps=eps)]
    rows += [r for seed in (0, 1) for r in deterministic("at", training_seed=seed)]
    folder = write(tmp_path / "out", rows)
    with pytest.raises(UserError, match='several values of eps; give one of "1/5", "1/10"'):
        load_images(folder, "two", "apgd")
    with pytest.raises(UserError, match='several values of training_seed; give one of "0", "1"'):
        load_images(folder, "at", "apgd")
    with pytest.raises(UserError, match='unknown eps of apgd "1/3"'):
        load_images(folder, "two", "apgd", eps="1/3")
    for chosen in ({"eps": "1/10"}, {"eps": "1/5"}):  # found; the images are not those of the digits
        with pytest.raises(UserError, match="image 0 of digits test is not the one that was attacked"):
            load_images(folder, "two", "apgd", **chosen)


def test_an_attack_without_images_says_why(tmp_path):
    rows = [
        *deterministic("other"),
        result(line("plain", "none"), [1] * 6),
        failed(line("plain", "x"), "error", "boom"),
    ]
    with pytest.raises(UserError, match=r"plain, x has no images \(boom\); run its cells first"):
        load_images(write(tmp_path / "out", rows), "plain", "x")


def test_absent_and_damaged_arrays_are_named(tmp_path):
    folder = shutil.copytree(GAN, tmp_path / "gan")
    (part,) = (folder / "parts").glob("all-pgd-at-*")
    whole = (part / "adversarial.safetensors").read_bytes()
    for damaged in (b"no arrays", whole[:-1] + bytes([whole[-1] ^ 1])):
        (part / "adversarial.safetensors").write_bytes(damaged)
        with pytest.raises(UserError, match=r"adversarial\.safetensors is damaged; run the board again"):
            load_images(folder, "pgd-at", "FGSM")
    (part / "adversarial.safetensors").unlink()
    with pytest.raises(UserError) as error:
        load_images(folder, "pgd-at", "FGSM")
    text = f"{folder} holds no images of pgd-at, FGSM: parts/{part.name} lacks adversarial.safetensors; copy it from "
    assert str(error.value) == f"{text}where the board ran, or remove the part and run the board again"
    assert len(load_images(folder, "undefended", "FGSM")) == 200


def test_another_data_set_of_the_same_name_is_refused(monkeypatch):
    digits = dataset.load_dataset("digits", "test")
    x = digits.x.clone()
    x[150, 0, 0, 0] = 1 - x[150, 0, 0, 0]
    monkeypatch.setattr(dataset, "load_dataset", lambda *_, **__: dataclasses.replace(digits, x=x))
    assert len(load_images(GAN, "pgd-at", "FGSM", indices=[3])) == 1
    with pytest.raises(UserError, match="image 150 of digits test is not the one that was attacked: the data set has"):
        load_images(GAN, "pgd-at", "FGSM")
