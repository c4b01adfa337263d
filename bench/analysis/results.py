"""Read a results folder into pandas. The folder's layout is told in `bench.store.folder`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.analysis.records import CLEAN, CLEANS, IMAGES, NULL, owners, read_records, with_correctness, with_failed
from bench.store.parts import DRAWS
from bench.store.reader import Part, read_folder

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CLEAN", "NULL", "Results", "load_cells", "load_draws", "load_results", "read_results"]

_CELL_COLUMNS = (
    *("defense", "training_seed", "attack", "view", "gradient", "eot", "runs", "seed_known"),
    *("dataset", "split", "indices", "block"),
    *("norm", "eps", "targets", "knowledge", "seed", "stochastic", "minimisation", "budget"),
)
_LINE_COLUMNS = ("key", "images", "draws", "selection", "status", "error", "part")
_JUDGED = (
    *("index", "label", "target", "correct", "draws", "correct_sel", "draws_sel", "hits", "hits_sel", "rejected"),
    *("in_box", "in_ball", "finite", "beyond", "majority_right", "majority_draws", "status", "error"),
)


def load_cells(path: str | Path) -> pd.DataFrame:
    """One row per cell of a results folder, in table order.

    Args:
        path: the folder.

    Returns:
        What was run (defense, attack, view, dataset...), `status` ("ok", "error", "unsupported", "missing"), `error`,
        and the totals of the attack phase (seconds_attack, forwards, backwards, queries) and of the verdict.

    Raises:
        UserError: no results there, or a damaged file.
    """
    frame: pd.DataFrame = read_folder(Path(path), lambda lines, _: _cell_frame(lines))
    return frame


def _cell_frame(lines: list[dict[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    first = [*_LINE_COLUMNS[:1], *_CELL_COLUMNS, *_LINE_COLUMNS[1:]]
    hidden = {"identity", "traceback", *first}
    costs = ["seconds_attack", "seconds_verdict", "forwards", "backwards", "queries"]
    rest = [*costs, *sorted({k for line in lines for k in line} - hidden - set(costs))]
    frame = pd.DataFrame(lines, columns=[*first, *rest])
    # Lines of older versions name no seed of training: it is the first one.
    frame = frame.assign(training_seed=frame["training_seed"].fillna(0).astype("int64"))
    frame = frame.assign(seed_known=frame["seed_known"].eq(True))
    return frame.astype({"runs": "Int64"}) if len(frame) else frame


def load_results(path: str | Path) -> pd.DataFrame:
    """Tidy results: one row per image per attack.

    Args:
        path: the results folder.

    Returns:
        Columns of the cell (defense, attack, view, dataset, norm, eps...), of the record (index, label, target,
        correct, draws, correct_sel, draws_sel, hits, hits_sel, rejected, margin, linf, l2, l1, l0, queries, forwards,
        backwards, seconds, status, error...), and
        `accuracy`: share of the held-out draws that are right (NaN: no verdict);
        `clean`, `null`: the same for the clean image, and for uniform noise in the ball;
        `success`: share of the held-out draws in which the attack has what it wants: a wrong class, neither the
        label nor a refusal, or when targeted its target;
        `succeeded`: the clean image is mostly right, and `success` is more than half;
        `majority_right`, `majority_draws`, only where a board has a sequential rule: whether the majority by that rule
        is right (1, 0), and how many held-out draws it took (NaN: not by such a rule).
        The attacks "none" and "uniform" are the clean images and the noise themselves. Cells of status "error" or
        "unsupported" have rows as well, with no draws and that status and error: one per image, or one of index -1
        where no other cell tells which images they are.

    Raises:
        UserError: no results there, or a damaged file.
    """
    frame: pd.DataFrame = read_folder(Path(path), _result_frame)
    return frame


def _result_frame(lines: list[dict[str, Any]], parts: list[Part]) -> pd.DataFrame:
    import pandas as pd

    cells = _cell_frame(lines)
    records = with_failed(cells, read_records(parts))
    frame: pd.DataFrame = pd.concat([_of_cells(cells, records, _CELL_COLUMNS), records.drop(columns="at")], axis=1)
    frame = frame.assign(**with_correctness(cells, records))
    frame["succeeded"] = (frame["clean"] > 0.5) & (frame["success"] > 0.5)
    return frame


def _of_cells(cells: pd.DataFrame, rows: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """For each row what is known of its cell."""
    found: pd.DataFrame = cells[list(columns)].take(rows["at"].to_numpy()).reset_index(drop=True)
    return found


def load_draws(path: str | Path) -> pd.DataFrame:
    """One row per image, attack and draw.

    Args:
        path: the results folder.

    Returns:
        defense, attack, view, norm, eps, cell, index, draw, held_out (False: a selection draw), pred, margin
        (logit of the label minus the largest other one), rejected, logits (less the largest; float16, or float32 in
        a part that has some under -65,504; of more than ten classes only the ten largest, and `classes` says which),
        and where a defense has a detector `score` (NaN elsewhere).

    Raises:
        UserError: no results there, or a damaged file.
    """
    frame: pd.DataFrame = read_folder(Path(path), _draw_frame)
    return frame


def _draw_frame(lines: list[dict[str, Any]], parts: list[Part]) -> pd.DataFrame:
    import pandas as pd

    columns = ["cell", "index", "draw", "held_out", "pred", "margin", "rejected", "logits"]
    tables = [t for t in (part.table(DRAWS) for part in parts) if t is not None and len(t)]
    rows = [t.to_pandas().astype({"cell": "str"}) for t in tables] or [pd.DataFrame(columns=[*columns, "at"])]
    draws = pd.concat(rows, ignore_index=True).sort_values("at", kind="stable", ignore_index=True)
    names = ("defense", "training_seed", "attack", "view", "norm", "eps")
    known = _of_cells(_cell_frame(lines), draws.astype({"at": "int32"}), names)
    frame: pd.DataFrame = pd.concat([known, draws.drop(columns="at")], axis=1)
    return frame


@dataclass(frozen=True, eq=False)
class Results:
    """Everything that tables are made of.

    Args:
        cells: see `load_cells`.
        records: one row per image and finished cell, in table order. "at": position of the cell in `cells`; columns
            of the record as in `load_results` (sizes in the norms of the board alone), with accuracy, clean, null and
            success; `majority` and `mean_logit`: whether the vote of the held-out draws, or of the first K where the
            board says so, is right (1, 0, or NaN where the draws do not tell), by the sequential rule where there is
            one; `newly_wrong`: number of held-out draws in which the clean image is right and the attack has what it
            wants (NaN without the clean image); `margin_sel`: see `bench.analysis.draws.votes`.
    """

    cells: pd.DataFrame
    records: pd.DataFrame


def read_results(path: str | Path) -> Results:
    """Read all that tables need, and nothing else.

    Raises:
        UserError: no results there, or a damaged file.
    """
    from bench.spec.aggregation import aggregation_of
    from bench.store.manifest import read_manifest

    return read_folder(Path(path), partial(_results, k=aggregation_of(read_manifest(Path(path))).k))


def _results(lines: list[dict[str, Any]], parts: list[Part], *, k: int | None) -> Results:
    from bench.analysis.draws import Images, clean_draws, votes

    cells = _cell_frame(lines)
    records = read_records(parts, (*_JUDGED, *(norm.lower() for norm in cells["norm"].unique())))
    images = Images.of(records)
    unattacked = frozenset(np.flatnonzero(cells["attack"].isin(CLEANS)).tolist())
    clean = clean_draws([part.only(unattacked) for part in parts], images, owners(cells, IMAGES))
    said = votes(parts, images, clean, cells["draws"].to_numpy(), k=k)
    if "majority_right" in records:
        by_rule = records["majority_right"].to_numpy(np.float64)
        said["majority"] = np.where(np.isnan(by_rule), said["majority"], by_rule)
    return Results(cells, records.assign(**with_correctness(cells, records), **said))
