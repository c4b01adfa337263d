"""Attacks that return something else, or change what they were given."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from faults.catalogue import case
from faults.ground import Ground, Outcome, finished


def _failing(ground: Ground, name: str, *words: str) -> Outcome:
    return ground.tried(ground.attack(name), ground.copy(), f"linear | {name}", *words, errors=[("linear", name)])


@case("an attack that returns images of another shape", "an error that names the cell")
def shape(ground: Ground) -> Iterator[Outcome]:
    for name in ("wrong_shape", "flat", "fewer"):
        yield _failing(ground, name, "returned (")


@case("an attack that returns nothing, or an array", "an error that names the cell")
def kind(ground: Ground) -> Iterator[Outcome]:
    yield _failing(ground, "nothing")
    yield _failing(ground, "array")


@case("an attack that returns whole or complex numbers", "an error that names the cell and the type")
def dtype(ground: Ground) -> Iterator[Outcome]:
    yield _failing(ground, "integers", "int64")
    yield _failing(ground, "complex_numbers", "complex64")


@case("an attack that returns double precision", "judged as float32, as the same attack in single precision")
def double(ground: Ground) -> Outcome:
    from bench.analysis.results import load_results

    out = ground.copy()
    told = ground.run(ground.attack("double"), out)
    assert told.code == 0, told.stderr
    frame = load_results(out).query("defense == 'linear'")
    rows = [frame[frame["attack"] == name][["correct", "linf"]].to_numpy().tolist() for name in ("slow", "double")]
    assert rows[0] == rows[1]
    return Outcome()


@case(
    "an attack that returns images on another device, or sparse", "an error that names the cell, or judged as they are"
)
def device(ground: Ground) -> Iterator[Outcome]:
    yield _failing(ground, "elsewhere")
    out = ground.copy()
    told = ground.run(ground.attack("sparse"), out)
    assert "Traceback" not in told.stderr
    if told.code:
        assert "linear | sparse" in told.stderr


@case("an attack that leaves the ball", "these images have no verdict and their row no rank")
def ball(ground: Ground) -> Outcome:
    return _failing(ground, "leaves", "left the Linf ball")


@case("an attack that leaves the box", "the same")
def box(ground: Ground) -> Outcome:
    return _failing(ground, "outside", "left the box")


@case("an attack that zeroes its input and returns it", "judged against the data: out of the ball")
def spoils(ground: Ground) -> Outcome:
    return _failing(ground, "spoils", "left the Linf ball")


@case("an attack that writes into the labels", "no number changes")
def labels(ground: Ground) -> Outcome:
    from bench.analysis.results import load_results

    out = ground.copy()
    told = ground.run(ground.attack("spoils_labels"), out)
    assert told.code == 0, told.stderr
    frame = load_results(out).query("defense == 'linear'")
    rows = [
        frame[frame["attack"] == name][["label", "correct"]].to_numpy().tolist() for name in ("none", "spoils_labels")
    ]
    assert rows[0] == rows[1]
    return Outcome()


@case("an attack that changes the weights of the model", "an error; the next cells meet the deployed model")
def weights(ground: Ground) -> Outcome:
    out = ground.copy()
    more = '\n[[attack]]\nname = "{models}:breaks_model"\nlabel = "breaks_model"\non = "linear"\n'
    more += '\n[[attack]]\nname = "{models}:still"\nlabel = "still"\non = "linear"\n'
    outcome = ground.tried(
        ground.board(more), out, "linear | breaks_model", "changed while", errors=[("linear", "breaks_model")]
    )
    _as_clean(out)
    return _without_row(outcome, out)


@case("an attack that sets train mode and gradient flags", "an error; the next cells meet the deployed model")
def modes(ground: Ground) -> Outcome:
    out = ground.copy()
    more = '\n[[attack]]\nname = "{models}:trains_model"\nlabel = "trains_model"\non = "linear"\n'
    more += '\n[[attack]]\nname = "{models}:still"\nlabel = "still"\non = "linear"\n'
    outcome = ground.tried(
        ground.board(more), out, "linear | trains_model", "changed while", errors=[("linear", "trains_model")]
    )
    _as_clean(out)
    return _without_row(outcome, out)


@case(
    "an attack that changes torch's default type, gradient mode, threads, generators and the folder", "all are put back"
)
def traces(ground: Ground) -> Outcome:
    import os

    folder, threads = os.getcwd(), torch.get_num_threads()
    out = ground.copy("nearly")
    more = '\n[[attack]]\nname = "{models}:leaves_traces"\nlabel = "leaves_traces"\non = "linear"\n'
    text = ground.board(more)
    kept = finished(out)
    told = ground.run(text, out)
    found = torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads(), os.getcwd()
    torch.set_default_dtype(torch.float32)
    torch.set_grad_enabled(True)
    torch.set_num_threads(threads)
    os.chdir(folder)
    assert found == (torch.float32, True, 1, folder)
    assert told.code == 0, told.stderr
    assert finished(out).items() >= kept.items()
    return Outcome(folder=out, board=ground.base.board, kept=kept)


@case("an attack whose error cannot be pickled or has no message", "an error that names the cell, in a worker too")
def strange_errors(ground: Ground) -> Iterator[Outcome]:
    out = ground.copy()
    kept, told = finished(out), ground.plainly(ground.attack("unpicklable"), out)
    errors = [("linear", "unpicklable")]
    yield Outcome(told, ("linear | unpicklable", "Local"), folder=out, kept=kept, errors=errors)
    yield _failing(ground, "interrupts_nothing", "ValueError")


def _as_clean(out: object) -> None:
    """The attack that changes nothing finds the deployed model: its verdicts are those of the clean images."""
    from bench.analysis.results import load_results

    frame = load_results(out).query("defense == 'linear'")  # type: ignore[arg-type]
    rows = [frame[frame["attack"] == name]["correct"].tolist() for name in ("none", "still")]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 60


def _without_row(outcome: Outcome, out: object) -> Outcome:
    """The same without the attack that changes nothing, which the reference does not have."""
    return Outcome(outcome.told, outcome.names, outcome.code)


@case(
    "attacks of every suite whose parameters search nothing or backwards: no steps, negative or tiny steps, c = 0",
    "told at their rows, whatever other attacks reach",
)
def budgets_of_nothing(ground: Ground) -> Outcome:
    import pandas as pd

    settings = {
        "foolbox:LinfPGD": ("steps = 2, abs_stepsize = 0.0001", "cannot cross the ball"),
        "foolbox:L2CarliniWagnerAttack": ("steps = 2, binary_search_steps = 1, initial_const = 0", "search nothing"),
        "torchattacks:PGD": ("steps = 2, alpha = -0.1", "search nothing or backwards"),
        "torchattacks:CW": ("steps = 2, c = 0", "search nothing"),
        "autoattack:apgd-ce": ("n_iter = 1", "is short"),
    }
    more = "".join(
        f'\n[[attack]]\nname = "{name}"\nlabel = "{name} of nothing"\nparams = {{{{ {text} }}}}\n'
        for name, (text, _) in settings.items()
    )
    out = ground.tmp / "own"
    told = ground.run(ground.board(more), out, "--defense", "linear")
    rows = pd.read_csv(out / "tables.csv", keep_default_na=False)
    rows = rows.query("defense == 'linear'").set_index("attack")["warnings"]
    for name, (_, words) in settings.items():
        told_of = f"{name} of nothing"
        assert not rows[told_of] or words in rows[told_of], (name, rows.to_dict())
    assert sum(words in text for text in rows for _, words in settings.values()) >= 3
    return Outcome(told, code=0)
