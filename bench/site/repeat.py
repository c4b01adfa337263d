"""Commands that repeat the numbers of a results folder or of a row of a board, and how long they took."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.site.commits import Made, made_of
from bench.site.model import Source
from bench.site.text import missing
from defenses.utils.names import portable
from defenses.utils.text import counted, human_time

CLONE = ("git clone REPOSITORY purebench", "cd purebench", "pip install uv", "uv sync && . .venv/bin/activate")
_OUT = ["--out", "again"]  # an empty folder: in one with results nothing is computed again


@dataclass(frozen=True)
class Repeat:
    """Commands and commits that repeat the numbers of a row.

    Args:
        made: the code that made its cells.
        run: command that attacks and judges again, in an empty folder.
        verify: command that judges stored images again.
        python: lines that compute its rows of tables from the records.
    """

    made: Made
    run: str
    verify: str
    python: tuple[str, ...]


def repeat_of(source: Source, name: str, label: str, lines: Iterable[Mapping[str, Any]]) -> Repeat:
    """Return how to repeat the numbers of a row.

    Args:
        source: the results folder.
        name: of the board, if no command of the folder names it.
        label: of the defense.
        lines: its cells, see `bench.store.reader.read_folder`.
    """
    return Repeat(
        made_of(source, lines),
        _run(source, name, [label]),
        shell(["purebench", "verify", source.name, "--defense", label, "--sample", "4"]),
        (
            "import bench",
            f"frame = bench.load_results({source.name!r})",
            f'print(bench.summary(frame[frame["defense"] == {label!r}])[["attack", "view", "robust_mean"]])',
        ),
    )


def commands(source: Source, name: str, lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the commands that make a results folder again in an empty one, and judge its stored images again.

    Args:
        source: the folder.
        name: of its board, if no command names it.
        lines: its cells; none where it is no board.
    """
    runs = {run.id: run.command for run in source.runs}
    of_cells = [runs.get(str(line.get("run")), "") for line in lines if line.get("status") == "ok"]
    typed = [command for command in dict.fromkeys(of_cells or runs.values()) if command.startswith("purebench ")]
    started = [made_of(source, lines).comment]
    if source.kind != "a board":
        return [*started, *dict.fromkeys(map(_elsewhere, typed))]
    runs_of_board = [words for words in map(str.split, typed) if words[1:2] == ["run"]]
    some = bool(runs_of_board) and all("--defense" in words for words in runs_of_board)
    labels = dict.fromkeys(str(line["defense"]) for line in lines) if some else ()
    others = [command for command in typed if not command.startswith("purebench run ")]  # as images of a challenge
    judged = [["purebench", "verify", source.name], ["purebench", "diff", source.name, "again"]]
    return [*started, _run(source, name, labels), *others, *map(shell, judged)]


def _run(source: Source, name: str, labels: Iterable[str]) -> str:
    """Return the command that runs a board again, or some of its defenses."""
    only = ["--defense", *labels]
    return shell(["purebench", "run", _board(source, name), *(only if len(only) > 1 else []), *_OUT])


def _elsewhere(command: str) -> str:
    """Return a command with another folder for its results."""
    try:
        words = shlex.split(command)
    except ValueError:  # recorded by hand
        return command
    at = words.index("--out") if "--out" in words else len(words)
    return shell([*words[:at], *words[at + 2 :], *_OUT])


def took(source: Source, lines: Iterable[Mapping[str, Any]]) -> str:
    """Return how long results took, in words; "" if unknown.

    Args:
        source: their folder; the times of its runs count where there are no cells.
        lines: their cells.
    """
    ran = [line for line in lines if line.get("status") == "ok"]
    if ran:
        attacks, verdicts = seconds(ran)
        parts = f"{attacks:,.0f} s of attacks and {verdicts:,.0f} s of verdicts"
        return f"{human_time(attacks + verdicts)} in {counted(len(ran), 'cell')}, one after another: {parts}"
    known = [run.seconds for run in source.runs if not missing(run.seconds)]
    return f"{human_time(sum(known))} in {counted(len(known), 'run')}" if known else ""


def seconds(lines: Iterable[Mapping[str, Any]]) -> tuple[float, float]:
    """Return the seconds of attacks and of verdicts of finished cells, as if one after another."""
    ran = [line for line in lines if line.get("status") == "ok"]
    attacks, verdicts = (sum(line.get(f"seconds_{of}") or 0.0 for line in ran) for of in ("attack", "verdict"))
    return attacks, verdicts


def shell(words: Iterable[str]) -> str:
    """Return words as a command of a shell."""
    return " ".join(shlex.quote(word) for word in words)


def _board(source: Source, name: str) -> str:
    """Return the board as the commands of a folder name it, else by its name."""
    for run in source.runs:
        words = run.command.split()
        if words[:2] == ["purebench", "run"] and len(words) > 2 and not words[2].startswith("-"):
            return words[2]
    return portable(name)
