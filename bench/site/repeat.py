"""Commands that repeat the numbers of a row of a board."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bench.site.model import Source
from bench.site.pages import quoted
from defenses.utils.names import portable
from defenses.utils.text import counted


@dataclass(frozen=True)
class Repeat:
    """Commands and commits that repeat the numbers of a row.

    Args:
        run: command that attacks and judges again, in an empty folder.
        verify: command that judges stored images again.
        python: lines that compute its rows of tables from the records.
        commits: of purebench, which made its cells, the one of most cells first; empty if unknown.
        unknown: number of cells whose commit is not recorded.
    """

    run: str
    verify: str
    python: tuple[str, ...]
    commits: tuple[str, ...]
    unknown: int

    @property
    def checkout(self) -> str:
        """Line that takes the code to the commit of its cells; of several commits, that of most cells."""
        if not self.commits:
            return "# which commit made these cells is not recorded"
        first, *others = self.commits
        rest = [f"other cells: {' '.join(others)}"] if others else []
        rest += [f"{counted(self.unknown, 'cell')} of a commit that is not recorded"] if self.unknown else []
        return f"git checkout {first}" + (f"  # {'; '.join(rest)}" if rest else "")


def repeat_of(source: Source, name: str, label: str, lines: Iterable[Mapping[str, Any]]) -> Repeat:
    """Return how to repeat the numbers of a row.

    Args:
        source: the results folder.
        name: of the board, if no command of the folder names it.
        label: of the defense.
        lines: its cells, see `bench.store.reader.read_folder`.
    """
    commits = {run.id: run.commit for run in source.runs}
    made = Counter(commits.get(str(line.get("run")), "") for line in lines if line.get("status") == "ok")
    only = f" --defense {quoted(label)}"
    return Repeat(
        f"purebench run {quoted(_board(source, name))}{only} --out again",
        f"purebench verify {quoted(source.name)}{only} --sample 4",
        (
            "import bench",
            f"frame = bench.load_results({source.name!r})",
            f'print(bench.summary(frame[frame["defense"] == {label!r}])[["attack", "view", "robust_mean"]])',
        ),
        tuple(commit for commit, _ in made.most_common() if commit),
        made[""],
    )


def _board(source: Source, name: str) -> str:
    """Return the board as the commands of a folder name it, else by its name."""
    for run in source.runs:
        words = run.command.split()
        if words[:2] == ["purebench", "run"] and len(words) > 2 and not words[2].startswith("-"):
            return words[2]
    return portable(name)
