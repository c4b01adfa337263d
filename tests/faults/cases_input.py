"""Models, data and names of other kinds than are expected."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from faults.catalogue import case
from faults.ground import Ground, Outcome, Told, nothing_written, run_command

_SQUARE = "bench:square"
_FILE = '''
import torch
from torch import nn
from defenses import FixedBatch, load_model


class Own(nn.Module):
    """Any network behind a forward pass of its own."""

    def __init__(self):
        super().__init__()
        self.inner = load_model("undefended").network
        self.eval()


class OfTwenty(Own):
    def forward(self, x):
        return self.inner(x.view(20, -1).view(20, 1, 8, 8))


class NeverOne(Own):
    def forward(self, x):
        return self.inner(x.squeeze().unsqueeze(1))


class Larger(Own):
    def forward(self, x):
        assert x.shape[-1] == 32, f"Input height ({x.shape[-1]}) doesn't match model (32)."
        return self.inner(nn.functional.avg_pool2d(x, 4))


class Coloured(Own):
    def forward(self, x):
        return self.inner(x.view(-1, 3, 8, 8).mean(1, keepdim=True))


def dropped():
    return nn.Sequential(nn.Dropout(0.5), load_model("undefended").network).train()


class Blind(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        return None


class Quantised(Own):
    """As a layer of integers: a graph, and no gradient in it."""

    def forward(self, x):
        return self.inner(Blind.apply(x))


def dynamic():
    return torch.ao.quantization.quantize_dynamic(load_model("undefended").network, {nn.Linear}, torch.qint8).eval()
'''


def _run(ground: Ground, name: str, *more: object, attack: str = _SQUARE) -> Told:
    """Run an attack on a model of the file above, on four images."""
    file = ground.tmp / "own.py"
    file.write_text(_FILE)
    words = ("--dataset", "digits", "--eps", "1/5", "--indices", "first-4", "--attack", attack, "--workers", "0")
    return run_command("run", "--defense", f"{file}:{name}", *words, "--out", ground.tmp / "out", *more)


def _refused(ground: Ground, name: str, *words: str) -> Outcome:
    """It is refused in one line, before anything is written."""
    told = _run(ground, name)
    nothing_written(ground.tmp / "out")
    lines = told.stderr.splitlines()
    assert ([" finished: " in line for line in lines[:-1]], len(lines)) in (([], 1), ([True], 2)), told.stderr
    return Outcome(told, (f"{name} ", *words))


@case("a model whose code has a batch size", "refused, naming the size and the wrapper that fills up batches")
def one_batch_size(ground: Ground) -> Outcome:
    return _refused(ground, "OfTwenty", "it takes batches of 20", "defenses.FixedBatch(model, 20)")


@case("a model that loses the axis of a single image", "refused, naming the axis and the same wrapper")
def no_single_image(ground: Ground) -> Outcome:
    return _refused(ground, "NeverOne", "no batch of one image", "x.squeeze()", "defenses.FixedBatch(model, 4)")


@case("a model of images of another size", "refused, naming the size and the layer that resizes")
def image_size(ground: Ground) -> Outcome:
    return _refused(ground, "Larger", "(8) doesn't match model (32)", "torchvision.transforms.Resize((32, 32)), model)")


@case("a model of images with another number of channels", "refused, naming the number and how to make them")
def channels(ground: Ground) -> Outcome:
    return _refused(ground, "Coloured", "it takes images of 3 channels", "x.expand(-1, 3, -1, -1)")


@case(
    "dropout that stays on",
    "refused, naming the declaration, with which it is judged as the random model that it is",
)
def dropout(ground: Ground) -> Iterator[Outcome]:
    from bench.analysis.results import load_results

    yield _refused(ground, "dropped", "in train mode", "--stochastic in a command")
    told = _run(ground, "dropped", "--stochastic", attack="autoattack:apgd-ce")
    assert told.code == 0, told.stderr
    frame = load_results(ground.tmp / "out")
    assert frame["stochastic"].all()
    assert frame["correct"].between(1, 14).any()  # of 15 draws


@case("a layer with a graph but without a gradient", "each attack that asks for one is an error, none counts as robust")
def no_gradient(ground: Ground) -> Iterator[Outcome]:
    from bench.analysis.results import load_results

    for attack in ("bench:pgd", "bench:apgd", "autoattack:apgd-ce"):
        yield Outcome(_run(ground, "Quantised", attack=attack), ("Quantised", attack, "no gradient", "quantised ones"))
    frame = load_results(ground.tmp / "out")
    assert frame.query("attack not in ['none', 'uniform']")["accuracy"].isna().all()


@case(
    "a model that quantises the activations of a batch together", "refused, naming the wrapper that takes single images"
)
def dynamic_quantisation(ground: Ground) -> Outcome:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _refused(ground, "dynamic", "other images in the batch", "defenses.FixedBatch(model, 1)")


@case("a shipped defense on data of one's own with images of the same shape", "refused: it has no weights for these")
def own_data(ground: Ground) -> Outcome:
    import numpy as np

    from defenses.data.dataset import load_dataset

    data, file = load_dataset("digits"), ground.tmp / "mine.npz"
    np.savez(file, x=data.x[:4].numpy(), y=data.y[:4].numpy())
    words = ("--defense", "adp", "--dataset", file, "--eps", "1/5", "--attack", _SQUARE, "--out", ground.tmp / "out")
    told = run_command("run", *words)
    nothing_written(ground.tmp / "out")
    return Outcome(told, ("no weights of", str(file)))


@case(
    "a data set by nearly its name, a defense by the name of a module that has moved", "refused with the present name"
)
def names(ground: Ground) -> Iterator[Outcome]:
    words = ("--eps", "1/5", "--attack", _SQUARE, "--out", ground.tmp / "out")
    for defense, dataset, present in (
        ("adp", "digit", "did you mean digits?"),
        ("defenses.broken:Quantised", "digits", "did you mean defenses.zoo.obfuscated:Quantised?"),
    ):
        yield Outcome(run_command("run", "--defense", defense, "--dataset", dataset, *words), (present,))
        nothing_written(ground.tmp / "out")


@case(
    "an attack without its library, a word that nothing has, a misspelt word of a command",
    "refused in one line with the nearest names, or with all that there are",
)
def nearest_names(ground: Ground) -> Iterator[Outcome]:
    yield Outcome(run_command("show", "pgd"), ("did you mean bench:pgd or foolbox:PGD or torchattacks:PGD",))
    yield Outcome(run_command("ls", "zzz"), ('"zzz"; known: attacks, boards, datasets, defenses, indices, presets',))
    for words, known in (
        (("new", "bord"), 'unknown choice "bord"; did you mean board?'),
        (("model-info", "x"), 'unknown choice "x"; known: export, show'),
        (("table", ground.base.reference, "--format", "markdwn"), "did you mean markdown?"),
    ):
        told = ground.base.driver({"argv": list(map(str, words)), "conditions": [], "signals": []})[0]
        assert (told.code, told.stderr.count("\n")) == (2, 1), told.stderr
        assert known in told.stderr


@case("a fraction without quotes in a board, of attacks and of poisoning", "refused, with the line as it should be")
def fraction(ground: Ground) -> Iterator[Outcome]:
    for command in ("run", "poison"):
        board: Path = ground.tmp / f"{command}.toml"
        board.write_text('dataset = "digits"\n[threat]\nnorm = "Linf"\neps = 8/255\n')
        yield Outcome(run_command(command, board), (str(board), 'write fractions in quotes, as eps = "8/255"'))


@case("a key of a board below a table of it", "refused, naming the header that it belongs above")
def below_a_header(ground: Ground) -> Outcome:
    told = run_command("run", ground.board('\nnulls = ["none"]\n'), "--out", ground.tmp / "out")
    nothing_written(ground.tmp / "out")
    return Outcome(told, ("small.toml", "move `nulls` above the first [["))


@case(
    "a result of `benchmark` that is unpacked as RobustBench's", "refused before any work, naming the function for it"
)
def unpacked(ground: Ground) -> Outcome:
    import pytest

    from bench import benchmark
    from defenses.utils.errors import UserError

    with pytest.raises(UserError) as told:
        _clean, _robust = benchmark("undefended", eps="1/5", out=ground.tmp / "out")
    nothing_written(ground.tmp / "out")
    assert str(told.value).endswith("write clean, robust = bench.clean_and_robust(bench.benchmark(...))")
    return Outcome()


@case(
    "adversarial digits in scikit-learn's order, without positions",
    "a note that they are nearer to other images, also below the tables; a network of one's own gets a note too",
)
def order_of_digits(ground: Ground) -> Outcome:
    import numpy as np
    from sklearn.datasets import load_digits

    images, out = ground.tmp / "theirs.npz", ground.tmp / "out"
    np.savez(images, x_adv=np.clip(load_digits().images[:8, None] / 16 + 0.05, 0, 1).astype("float32"))
    file = ground.tmp / "own.py"
    file.write_text(_FILE.replace("dropped():", "plain():").replace("0.5", "0.0").replace(".train()", ".eval()"))
    words = ("--defense", f"{file}:plain", "--eps", "1/5", "--minimisation", "--workers", "0", "--out", out)
    told = run_command("judge", images, *words)
    assert told.code == 0, told.stderr
    notes = [line for line in told.stderr.splitlines() if line.startswith("note: ")]
    assert ["nearer to other images" in notes[0], "permutation of scikit-learn's images" in notes[1]] == [True, True]
    assert len(notes) == 2
    assert (out / "tables.md").read_text().count("- data: ") == 4  # two tables
    return Outcome()


def _each(told: Told, *lines: str) -> Iterator[Outcome]:
    """Yield an outcome for each fault, which has a line of its own."""
    assert told.stderr.count("\n") == len(lines), told.stderr
    yield from (Outcome(told, (line,)) for line in lines)


@case("a recipe with two faults", "both are named, a line for each, with the nearest key; nothing is written")
def faults_of_a_recipe(ground: Ground) -> Iterator[Outcome]:
    told = run_command("train", "pgd-at", "--out", ground.tmp / "out", "--set", "objective.epz=1/5", "batch=0")
    nothing_written(ground.tmp / "out")
    yield from _each(told, 'unknown key of objective "epz"; did you mean eps', "batch is 0; it must be a whole")


@case("a board with three faults", "all three are named, a line for each, with section and remedy; nothing is written")
def faults_of_a_board(ground: Ground) -> Iterator[Outcome]:
    changes = ("block = 20", "blok = 20"), ('eps = "1/10"', "eps = true"), ("eot = 2", 'output = "logit"')
    told = ground.run(ground.board("", *changes), ground.tmp / "out")
    nothing_written(ground.tmp / "out")
    eps, view = "eps in [threat] is True; it must be a number", 'unknown view output "logit"; did you mean logits?'
    yield from _each(told, 'unknown key in the board "blok"; did you mean block?', eps, view)


@case("settings of an adaptive attack with two faults", "both are named, with the entry of the board and the remedy")
def faults_of_settings(ground: Ground) -> Iterator[Outcome]:
    attack = '[[attack]]\nname = "bench:pgd"\nparams = {{ steps = 0, losses = ["dlrr"] }}'
    told = ground.run(ground.board(attack), ground.tmp / "out")
    nothing_written(ground.tmp / "out")
    yield from _each(told, "bench:pgd: steps is 0; it must be a whole number", "did you mean dlr?")
