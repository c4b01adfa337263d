"""Models that misbehave."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from faults.catalogue import case
from faults.ground import Ground, Outcome, finished


def _errors(name: str) -> list[tuple[str, str]]:
    return [(name, "slow"), (name, "autoattack:apgd-ce")]


@case("a model that raises on its third batch", "its cells from then on are errors; others are as ever")
def raises(ground: Ground) -> Outcome:
    return ground.tried(
        ground.defense("ThirdBatch"), ground.copy(), "ThirdBatch", "third batch", errors=_errors("ThirdBatch")
    )


@case("a model that hangs", "its cells are stopped at the time limit and are errors; others are done")
def hangs(ground: Ground) -> Outcome:
    begin, out = time.perf_counter(), ground.copy()
    kept, more = finished(out), ("--time-limit", "2", "--attack", "slow")
    told = ground.run(ground.defense("Hangs"), out, *more)
    assert time.perf_counter() - begin < 120
    return Outcome(told, ("Hangs | slow",), folder=out, kept=kept, errors=_errors("Hangs"))


@case("a model that leaks memory", "its cells are stopped at the memory limit and are errors; others are done")
def leaks(ground: Ground) -> Outcome:
    out = ground.copy()
    kept, more = finished(out), ("--memory", "1.5", "--attack", "slow")
    told = ground.run(ground.defense("Leaks"), out, *more)
    return Outcome(told, ("Leaks | slow",), folder=out, kept=kept, errors=_errors("Leaks"))


@case("a model that kills its own process", "its cells are errors that say so; others are done")
def dies(ground: Ground) -> Outcome:
    out = ground.copy()
    kept, more = finished(out), ("--workers", "2", "--attack", "slow")
    told = ground.run(ground.defense("Dies"), out, *more)
    return Outcome(told, ("Dies | slow",), folder=out, kept=kept, errors=_errors("Dies"))


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
    from bench.results import load_results

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
    from bench.results import load_results

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
    return Outcome(told, ("cuda:99", "--device cpu"), folder=out, board=ground.base.board, kept=kept)
