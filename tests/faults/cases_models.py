"""Models that misbehave."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.catalogue import case
from faults.ground import Ground, Outcome, finished, nothing_written, run_command, trained


def _errors(name: str) -> list[tuple[str, str]]:
    return [(name, "slow"), (name, "autoattack:apgd-ce")]


@case("a model that raises on its third batch", "its cells from then on are errors; others are as ever")
def raises(ground: Ground) -> Outcome:
    return ground.tried(
        ground.defense("ThirdBatch"), ground.copy(), "ThirdBatch", "third batch", errors=_errors("ThirdBatch")
    )


@case("a model that hangs in one cell", "it is stopped at the time limit and is an error; others are done")
def hangs(ground: Ground) -> Outcome:
    begin, out = time.perf_counter(), ground.copy()
    kept, more = finished(out), ("--time-limit", "2", "--attack", "slow")
    told = ground.plainly(ground.defense("Hangs"), out, *more)
    assert time.perf_counter() - begin < 120
    return Outcome(told, ("Hangs | slow",), folder=out, kept=kept, errors=_errors("Hangs"))


@case("a model that leaks memory in one cell", "it is stopped at the memory limit and is an error; others are done")
def leaks(ground: Ground) -> Outcome:
    out = ground.copy()
    kept, more = finished(out), ("--memory", "1.5", "--attack", "slow")
    told = ground.plainly(ground.defense("Leaks"), out, *more)
    return Outcome(told, ("Leaks | slow",), folder=out, kept=kept, errors=_errors("Leaks"))


@case(
    "models that call os._exit(0), kill their process or read where no memory is in one cell, in a run by default",
    "these three cells are errors, each named with how the process ended; all others are done",
)
def ends_the_process(ground: Ground) -> Iterator[Outcome]:
    from bench.analysis.results import load_cells

    how = {"Leaves": "exit code 0", "Dies": "signal 9", "Crashes": "signal 11"}
    more = "".join(f'\n[[defense]]\nname = "{{models}}:{name}"\nlabel = "{name}"\n' for name in how)
    out = ground.copy("half")
    kept = finished(out)
    told = ground.plainly(ground.board(more), out)
    for name, end in how.items():
        yield Outcome(told, (f"error on record: {name} | slow | ", "images 0-19: ", end))
    assert told.stderr.count("error on record") == 3
    cells = load_cells(out)
    assert len(cells) == 5 * 12
    assert cells[cells["status"] != "ok"][["defense", "attack", "block"]].values.tolist() == [
        [name, "slow", 0] for name in how
    ]
    yield Outcome(told, folder=out, kept=kept, errors=[(name, "slow") for name in how])


@case("a model that counts its calls in a buffer", "refused before any work, naming it")
def counts(ground: Ground) -> Outcome:
    return ground.tried(ground.defense("Counts"), ground.copy(), "Counts", "changes its own", errors=[("Counts", "*")])


@case("a model that updates running statistics in evaluation mode", "refused before any work, naming it")
def running_statistics(ground: Ground) -> Outcome:
    name = "RunningStatistics"
    return ground.tried(ground.defense(name), ground.copy(), name, "changes its own", errors=[(name, "*")])


@case(
    "a model that changes a weight while it is attacked", "these cells are errors; every cell meets the deployed model"
)
def learns(ground: Ground) -> Outcome:
    name = "LearnsLate"
    return ground.tried(ground.defense(name), ground.copy(), name, "changed while", errors=_errors(name))


@case("a model that writes into the images", "what it leaves is out of the ball or a failed attack, and never robust")
def writes(ground: Ground) -> Outcome:
    from bench.analysis.results import load_results

    out = ground.copy()
    kept = finished(out)
    ground.run(ground.defense("Writes"), out)
    frame = load_results(out).query("defense == 'Writes'")
    attacked = frame[frame["attack"].isin(["slow", "autoattack:apgd-ce"])]
    within = attacked[attacked["accuracy"].notna()]
    assert (within["linf"] <= 0.1 + 1e-6).all()
    linear = load_results(out).query("defense == 'linear' and attack == 'none'")
    assert linear["accuracy"].tolist() == frame.query("attack == 'none'")["accuracy"].tolist()
    assert finished(out).items() >= kept.items()
    return Outcome()


@case("a model that prints megabytes with terminal escapes", "no more than a few lines are shown; no number changes")
def prints(ground: Ground) -> Outcome:
    from bench.analysis.results import load_results

    out = ground.copy()
    told = ground.run(ground.defense("Prints"), out, "--attack", "slow")
    assert told.code == 0, told.stderr[-2000:]
    assert "loud" not in told.stdout
    assert len(told.stderr) < 60_000
    assert "more characters were printed" in told.stderr
    assert "\x1b" not in told.stderr
    frame = load_results(out).query("attack == 'slow'")
    rows = [frame[frame["defense"] == name]["correct"].tolist() for name in ("linear", "Prints")]
    assert rows[0] == rows[1]
    return Outcome()


@case("a model that calls sys.exit(0)", "its cells are errors; the run goes on, and its exit code is 2")
def exits(ground: Ground) -> Outcome:
    return ground.tried(ground.defense("Exits"), ground.copy(), "Exits", "SystemExit", errors=_errors("Exits"))


@case("a model whose message is a megabyte of markup, escapes and lines", "cut, cleaned and in one line")
def shouts(ground: Ground) -> Iterator[Outcome]:
    out = ground.copy()
    outcome = ground.tried(ground.defense("Shouts"), out, "Shouts", "RuntimeError", errors=_errors("Shouts"))
    assert len(outcome.told.stderr) < 20_000
    assert "second line" not in outcome.told.stderr
    assert "<script>" not in (out / "tables.html").read_text()
    yield outcome


@case("a model in train mode, of probabilities, of another size, of another number of classes", "refused, naming it")
def unfit(ground: Ground) -> Iterator[Outcome]:
    for name, word in (
        ("Training", "train mode"),
        ("Probabilities", "probabilities"),
        ("Large", "1x8x8"),
        ("five", "10"),
    ):
        out = ground.copy()
        yield ground.tried(ground.defense(name), out, name, word, errors=[(name, "*")])


@case(
    "a network without dropout or batch norm in train mode",
    "judged in evaluation mode, with the numbers of the same network after `.eval()`",
)
def mode_without_effect(ground: Ground) -> Outcome:
    from bench.analysis.results import load_results

    out = ground.tmp / "out"
    for name in ("Pooled", "PooledInTrainMode"):
        told = ground.plainly(ground.defense(name), out / name, "--defense", name, "--attack", "autoattack:apgd-ce")
        assert told.code == 0, told.stderr
    evaluated, trained = (load_results(out / name)["correct"].tolist() for name in ("Pooled", "PooledInTrainMode"))
    assert evaluated == trained
    return Outcome()


@case(
    "a certificate of a model that returns probabilities of sure predictions",
    "it fails, naming the probabilities and the remedy, and exits with 1",
)
def certificate_of_probabilities(ground: Ground) -> Outcome:
    told = run_command("certify", f"{ground.base.folder / 'models.py'}:Sure")
    assert told.code == 1
    assert "Sure: FAILED on 4 images in float64: returns probabilities; return logits (remove the" in told.stdout
    return Outcome()


@case(
    "a model in train mode, or a damaged checkpoint, for a results folder that is not there yet",
    "refused, naming it, before anything is written",
)
def before_anything_is_written(ground: Ground) -> Iterator[Outcome]:
    board, file = trained(ground)
    whole, out = file.read_bytes(), ground.tmp / "new"
    for damaged in (whole[:100], whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1])):
        file.write_bytes(damaged)
        for run in (ground.run, ground.plainly):
            yield Outcome(run(board, out, "--weights-root", file.parent.parent), (str(file),))
            nothing_written(out)
    for run in (ground.run, ground.plainly):
        yield Outcome(run(ground.defense("Training"), out), ("Training", "train mode"))
        nothing_written(out)


@case("a model that is another one each time it is built", "refused, naming it")
def unseeded(ground: Ground) -> Outcome:
    out = ground.copy()
    return ground.tried(ground.defense("unseeded"), out, "unseeded", "another model", errors=[("unseeded", "*")])


@case("an accelerator that is not there", "refused, naming it")
def device(ground: Ground) -> Outcome:
    out = ground.copy("nearly")
    kept = finished(out)
    told = ground.run(ground.base.board, out, "--device", "cuda:99")
    if told.code == 0:
        pytest.skip("there are a hundred")
    return Outcome(told, ("cuda:99", "try cpu"), folder=out, board=ground.base.board, kept=kept)


@case(
    "files of models and data that end the process when they are imported, built or asked (sys.exit and os._exit)",
    "refused in one line that names them, exit code 2, and nothing is written",
)
def ends_before_it_begins(ground: Ground) -> Iterator[Outcome]:
    file, out = ground.tmp / "ends.py", ground.tmp / "out"
    defense = ground.board(f'\n[[defense]]\nname = "{file}:Made"\nlabel = "made"\n', name="model.toml")
    data = ground.board("", ('dataset = "digits"', f'dataset = "{file}:data"'), name="data.toml")
    for leave in ("sys.exit(0)", "os._exit(0)"):
        imported = f"import os, sys\n{leave}\n"
        built = f"import os, sys, torch\nclass Made(torch.nn.Module):\n    def __init__(self):\n        {leave}\n"
        asked = f"import os, sys\ndef data(split):\n    {leave}\n"
        for text, board in ((imported, defense), (built, defense), (imported, data), (asked, data)):
            file.write_text(text)
            yield Outcome(ground.run(board, out), (str(file), "it ends the program (exit code 0)"))
            nothing_written(out)


@case(
    "an honest network whose max pooling ties on flat backgrounds",
    "its gradients have a certificate, and its rows no mark",
)
def pools(ground: Ground) -> Outcome:
    out = _certified(ground, "Pooled", 0, "passed on 4 images")
    assert "Pooled †" not in (out / "tables.md").read_text()
    return Outcome()


@case("a plain classifier that rounds its images", "its certificate fails, exit code 1, and its rows are marked")
def rounds(ground: Ground) -> Outcome:
    out = _certified(ground, "Rounds", 1, "FAILED on 4 images")
    text = (out / "tables.md").read_text()
    assert "| Rounds † " in text
    assert "Rounds: fails: integral of the gradient along lines" in text
    return Outcome()


def _certified(ground: Ground, name: str, code: int, words: str) -> Path:
    """Certify a defense and run a white-box attack on it; return the results."""
    told = run_command("certify", f"{ground.base.folder / 'models.py'}:{name}")
    assert (told.code, words in told.stdout) == (code, True), told.stdout
    out = ground.tmp / "certified"
    told = ground.run(ground.defense(name), out, "--defense", name, "--attack", "autoattack:apgd-ce")
    assert told.code == 0, told.stderr
    return out


@case("a model that raises KeyboardInterrupt", "its cells are errors; others are as ever")
def raises_keyboard_interrupt(ground: Ground) -> Outcome:
    out = ground.copy()
    kept, more = finished(out), ("--attack", "slow")
    told = ground.plainly(ground.defense("Presses"), out, *more)
    return Outcome(told, ("Presses | slow", "KeyboardInterrupt"), folder=out, kept=kept, errors=_errors("Presses"))
