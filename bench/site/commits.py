"""Commits of results: which code made the numbers of a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bench.site.model import Site, SiteBoard, SiteRow, Source
from defenses.utils.text import counted


@dataclass(frozen=True)
class Commit:
    """Commit of purebench that made results.

    Args:
        sha: in full; "" if it is not recorded.
        dirty: True with changes beside it.
        cells: number of finished cells that it made; 0 where results are no cells.
    """

    sha: str
    dirty: bool = False
    cells: int = 0

    @property
    def more(self) -> str:
        """Return what stands behind it in a list of commits."""
        cells = f"({counted(self.cells, 'cell')})" if self.cells else ""
        return " ".join(filter(None, ("with changes" if self.dirty else "", cells)))


@dataclass(frozen=True)
class Made:
    """Results of a folder, with the code that made them.

    Args:
        name: the folder, as the site names it.
        command: of the run that made most of them; "" if unknown.
        commits: that of most cells first, one that is not recorded last; never empty.
    """

    name: str
    command: str
    commits: tuple[Commit, ...]

    @property
    def comment(self) -> str:
        """Line of a shell that names the commits; later ones repeat the cells, as these keep their keys."""
        results = "cells" if self.commits[0].cells else "results"
        named = [" ".join(filter(None, (commit.sha, commit.more))) for commit in self.commits if commit.sha]
        if not named:
            return f"# which commit made these {results} is not recorded"
        named += [f"{counted(c.cells, 'cell')} at a commit that is not recorded" for c in self.commits if not c.sha]
        return f"# made at {', '.join(named)}"


def made_of(source: Source, lines: Iterable[Mapping[str, Any]]) -> Made:
    """Return the code that made results of a folder.

    Args:
        source: the folder.
        lines: cells, see `bench.store.reader.read_folder`; without finished ones, all runs of the folder count.
    """
    runs = {run.id: run for run in source.runs}
    cells = Counter(str(line.get("run")) for line in lines if line.get("status") == "ok")
    counts: Counter[tuple[str, bool]] = Counter()
    for name, count in (cells or dict.fromkeys(runs, 0)).items():
        run = runs.get(name)
        counts[(run.commit, run.dirty) if run and run.commit else ("", False)] += count
    ordered = sorted(counts.items(), key=lambda found: (not found[0][0], -found[1]))
    commits = tuple(Commit(sha, dirty, count) for (sha, dirty), count in ordered)
    known = [runs[name].command for name, _ in cells.most_common() if name in runs]
    command = (known or [run.command for run in source.runs[-1:]] or [""])[0]
    return Made(source.name, command, commits or (Commit(""),))


def of_row(board: SiteBoard, row: SiteRow) -> list[Made]:
    """Return the code that made a row."""
    return [made_of(board.source, row.lines)]


def of_board(board: SiteBoard) -> list[Made]:
    """Return the code that made a board."""
    return [made_of(board.source, (line for row in board.rows for line in row.lines))]


def of_site(site: Site, names: Iterable[str] = ()) -> list[Made]:
    """Return the code that made each folder of a site.

    Args:
        site: the site.
        names: of the folders; empty: all.
    """
    chosen = set(names)
    lines: dict[str, list[Mapping[str, Any]]] = {}
    for board in site.boards:
        lines.setdefault(board.source.name, []).extend(line for row in board.rows for line in row.lines)
    sources = [source for source in site.sources if not chosen or source.name in chosen]
    return [made_of(source, lines.get(source.name, ())) for source in sources]
