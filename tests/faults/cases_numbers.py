"""NaN and infinity: in weights, logits, gradients and adversarial images."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from faults.catalogue import case
from faults.ground import Ground, Outcome


@case("weights with NaN, correctly signed", "refused before any work, naming the defense")
def weights(ground: Ground) -> Iterator[Outcome]:
    from boards import BOARD

    from defenses.zoo.checkpoints import load_network, read_sidecar, save_network
    from defenses.zoo.weight_paths import find_weights

    file = ground.tmp / "weights/digits/undefended.safetensors"
    board = ground.tmp / "trained.toml"
    text = BOARD.replace('"{models}:linear"', '"undefended"').replace('label = "linear"', 'label = "trained"')
    board.write_text(text.format(models=ground.base.folder / "models.py", seconds=0.0))
    network = read_sidecar(find_weights("undefended", "digits"))["network"]
    for value in (float("nan"), float("inf")):
        module = load_network("undefended", "digits")
        next(module.parameters()).data.view(-1)[3] = value
        save_network(file, module, network["kind"], network["args"], {})
        told = ground.run(board, ground.tmp / "none", "--defense", "trained", "--weights-root", file.parent.parent)
        yield Outcome(told, ("trained", "undefended.safetensors", "not finite"))
        assert not list((ground.tmp / "none").glob("parts/*"))


def _bad_defense(ground: Ground, name: str, *words: str) -> Outcome:
    """Its attacks end as errors, which name the cell; everything else is as ever."""
    attacks = ["slow", "autoattack:apgd-ce", *([] if "gradient" in words else ["uniform"])]
    errors = [(name, attack) for attack in attacks]
    return ground.tried(ground.defense(name), ground.copy(), name, *words, errors=errors)


@case("logits that are NaN for adversarial images alone", "every attack is an error, none counts as robust")
def late_logits(ground: Ground) -> Outcome:
    return _bad_defense(ground, "LateNaN", "not finite")


@case("logits that are infinite for adversarial images alone", "the same")
def infinite_logits(ground: Ground) -> Outcome:
    return _bad_defense(ground, "LateInf", "not finite")


@case("a gradient of NaN behind right logits", "every attack that asks for it is an error, none counts as robust")
def gradient(ground: Ground) -> Outcome:
    return _bad_defense(ground, "GradientNaN", "gradient")


@case("an infinite gradient behind right logits", "the same")
def infinite_gradient(ground: Ground) -> Outcome:
    return _bad_defense(ground, "GradientInf", "gradient")


@case("a gradient of NaN under each suite", "an error in every one of them")
def gradient_in_every_suite(ground: Ground) -> Iterator[Outcome]:
    attacks = ("autoattack:apgd-dlr", "autoattack:fab", "foolbox:LinfPGD", "foolbox:LinfDeepFoolAttack",
               "torchattacks:PGD", "torchattacks:EOTPGD", "torchattacks:FGSM")  # fmt: skip
    more = '\n[[defense]]\nname = "{models}:GradientNaN"\nlabel = "GradientNaN"\n'
    for name in attacks:
        more += f'\n[[attack]]\nname = "{name}"\non = "GradientNaN"\n'
    out = ground.copy()
    names = [*attacks, "slow", "autoattack:apgd-ce"]
    outcome = ground.tried(ground.board(more), out, "GradientNaN", errors=[("GradientNaN", n) for n in names])
    for name in attacks:
        assert f"error on record: GradientNaN | {name}" in outcome.told.stderr, name
    yield outcome


@case("logits without a graph to the image", "every attack by gradients is an error, those of our own too")
def no_graph(ground: Ground) -> Outcome:
    more = '\n[[defense]]\nname = "{models}:Hidden"\nlabel = "Hidden"\n'
    names = ("bench:apgd", "bench:pgd", "bench:adaptive")
    more += "".join(f'\n[[attack]]\nname = "{name}"\non = "Hidden"\n' for name in names)
    errors = [("Hidden", name) for name in (*names, "slow", "autoattack:apgd-ce")]
    return ground.tried(ground.board(more), ground.copy(), "Hidden", "no gradient to the image", errors=errors)


@case("adversarial images with NaN", "these images have no verdict and their row no rank")
def nan_images(ground: Ground) -> Outcome:
    return ground.tried(ground.attack("nan"), ground.copy(), "linear | nan", "not finite", errors=[("linear", "nan")])


@case("adversarial images with infinity", "the same")
def infinite_images(ground: Ground) -> Outcome:
    errors = [("linear", "infinite")]
    return ground.tried(ground.attack("infinite"), ground.copy(), "linear | infinite", "not finite", errors=errors)


@case("images of NaN in a data file", "refused naming the file")
def data(ground: Ground) -> Outcome:
    import numpy as np

    from defenses.data.dataset import load_dataset

    digits, file = load_dataset("digits"), ground.tmp / "own.npz"
    x = digits.x[:60].numpy().copy()
    x[7, 0, 3, 3] = torch.nan
    np.savez(file, x=x, y=digits.y[:60].numpy())
    board = ground.board("", ('dataset = "digits"', f'dataset = "{file}"'), name="own.toml")
    return Outcome(ground.run(board, ground.tmp / "own"), (str(file), "nan"))
