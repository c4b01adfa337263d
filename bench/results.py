"""Read a results folder into pandas. The folder's layout is told in `bench.store`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cell import NULLS
from bench.store import CELLS, DRAWS, RECORDS
from defenses.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

CLEAN, NULL = NULLS  # clean images, uniform noise in the ball

_CELL_COLUMNS = (
    *("defense", "attack", "view", "gradient", "eot", "runs", "dataset", "split", "indices", "block", "norm", "eps"),
    *("targets", "knowledge", "seed", "stochastic", "minimisation", "budget"),
)
_RECORD_COLUMNS = (
    *("cell", "index", "sha", "label", "target", "correct", "draws", "correct_sel", "draws_sel", "hits", "hits_sel"),
    *("rejected", "margin", "linf", "l2", "l1", "l0", "in_box", "in_ball", "finite", "beyond", "queries", "forwards"),
    *("backwards", "seconds", "status", "error"),
)
_LINE_COLUMNS = ("key", "images", "draws", "selection", "status", "error", "part")
_IMAGE = ["defense", "dataset", "split", "indices", "index"]
_TRIES = 3  # parts may be merged by a running board while they are read


@dataclass(frozen=True)
class Part:
    """A folder of a results folder, and the keys of the cells that are read from it."""

    folder: Path
    keys: frozenset[str]

    def table(self, name: str, columns: list[str] | None = None) -> Any:
        """A Parquet file as an Arrow table of this part's cells alone; None where no cell of the part has any rows.

        Raises:
            UserError: the file cannot be read.
        """
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        if not self.keys:
            return None
        path = self.folder / name
        try:
            # Opened here: given a path, pyarrow would look for partitions in it.
            with path.open("rb") as file:
                table = pq.read_table(file)
        except FileNotFoundError:
            if not self.folder.is_dir():
                raise
            raise UserError(f"{path} is missing; run the board again, which redoes these cells") from None
        except (OSError, ValueError, pa.ArrowException):
            raise UserError(f"{path} cannot be read; run the board again, which redoes these cells") from None
        table = table.filter(pc.is_in(table["cell"].cast(pa.string()), pa.array(sorted(self.keys))))
        return table.select([c for c in columns if c in table.column_names]) if columns else table


def _lines(file: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError:
        raise
    except (OSError, ValueError):
        raise UserError(f"{file} cannot be read; run the board again, which redoes these cells") from None


def _stored(folder: Path) -> tuple[list[dict[str, Any]], list[Part]]:
    """The lines of all cells in table order, those without a result included, and the parts that hold results.

    Cells that the plan does not name are left out: they belong to an older version of the board.
    """
    if not (folder / "parts").is_dir():
        raise UserError(f"{folder} holds no results; give the folder of a run, as results/quickstart")
    found: dict[str, dict[str, Any]] = {}
    folders = sorted(p for p in (folder / "parts").iterdir() if p.is_dir() and not p.name.startswith("."))
    # Merged parts first: a cell's own part is newer, but a failed result never hides a good one.
    for part in sorted(folders, key=lambda p: (p.name.startswith("cell-"), p.name)):
        for line in _lines(part / CELLS):
            known = found.get(line["key"])
            if known is None or line["status"] == "ok" or known["status"] != "ok":
                found[line["key"]] = line | {"part": part.name}
    plan = _lines(folder / "plan.jsonl") if (folder / "plan.jsonl").is_file() else list(found.values())
    missing = {"status": "missing", "error": None, "part": None}
    # Labels are not part of a key: the plan has the current ones.
    lines = [found.get(p["key"], missing) | p for p in plan]
    held: dict[str, set[str]] = {}
    for line in lines:
        if line["status"] == "ok":
            held.setdefault(line["part"], set()).add(line["key"])
    return lines, [Part(p, frozenset(held.get(p.name, ()))) for p in folders]


def _attempts(folder: Path, read: Any) -> Any:
    for attempt in range(_TRIES):
        try:
            return read(*_stored(folder))
        except FileNotFoundError as error:
            if attempt == _TRIES - 1:
                raise UserError(f"{error.filename} vanished while it was read; repeat the command") from None
    raise AssertionError


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
    frame: pd.DataFrame = _attempts(Path(path), lambda lines, _: _cell_frame(lines))
    return frame


def _cell_frame(lines: list[dict[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    first = [*_LINE_COLUMNS[:1], *_CELL_COLUMNS, *_LINE_COLUMNS[1:]]
    hidden = {"identity", "traceback", *first}
    costs = ["seconds_attack", "seconds_verdict", "forwards", "backwards", "queries"]
    rest = [*costs, *sorted({k for line in lines for k in line} - hidden - set(costs))]
    frame = pd.DataFrame(lines, columns=[*first, *rest])
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
        `succeeded`: the clean image is mostly right, and `success` is more than half.
        The attacks "none" and "uniform" are the clean images and the noise themselves. Cells of status "error" or
        "unsupported" have rows as well, with no draws and that status and error: one per image, or one of index -1
        where no other cell tells which images they are.

    Raises:
        UserError: no results there, or a damaged file.
    """
    frame: pd.DataFrame = _attempts(Path(path), lambda lines, parts: _result_frame(lines, parts, failed=True))
    return frame


def _result_frame(lines: list[dict[str, Any]], parts: list[Part], *, failed: bool = False) -> pd.DataFrame:
    import pandas as pd

    tables = [t for t in (part.table(RECORDS) for part in parts) if t is not None and len(t)]
    rows = [t.to_pandas() for t in tables] or [pd.DataFrame(columns=list(_RECORD_COLUMNS))]
    cells = _cell_frame(lines)
    order = pd.Series(range(len(cells)), index=cells["key"], dtype="int64")
    records = pd.concat(rows, ignore_index=True)
    # Records of older versions do not tell the hits of selection draws.
    old = records["hits_sel"] if "hits_sel" in records else pd.Series(0, index=records.index)
    records["hits_sel"] = old.fillna(0).astype("int32")
    if failed:
        records = _with_failed(cells, records)
    records = records.sort_values("cell", key=lambda c: c.astype(object).map(order), kind="stable")
    frame = cells[["key", *_CELL_COLUMNS]].merge(records, left_on="key", right_on="cell").drop(columns="key")
    return _derived(frame)


def _with_failed(cells: pd.DataFrame, records: pd.DataFrame) -> pd.DataFrame:
    """The records, and for every cell that failed one of no draws per image."""
    import pandas as pd

    block, image = ["dataset", "split", "indices", "block"], ["index", "sha", "label"]
    lost = cells.loc[cells["status"].isin(["error", "unsupported"]), ["key", *block, "status", "error"]]
    if lost.empty:
        return records
    known = cells[["key", *block]].merge(records[["cell", *image]], left_on="key", right_on="cell")
    rows = lost.merge(known[[*block, *image]].drop_duplicates([*block, "index"]), on=block, how="left")
    rows = rows.rename(columns={"key": "cell"}).fillna({"index": -1, "sha": "", "label": -1}).assign(target=-1)
    rows = rows.reindex(columns=records.columns)
    counts = ["correct", "draws", "correct_sel", "draws_sel", "hits", "hits_sel", "rejected"]
    rows[[*counts, "in_box", "in_ball", "finite", "beyond"]] = 0
    return pd.concat([records, rows.astype(records.dtypes.to_dict())], ignore_index=True)


def _derived(frame: pd.DataFrame) -> pd.DataFrame:
    draws = frame["draws"].astype("float64").where((frame["status"] == "ok") & (frame["draws"] > 0))
    frame["accuracy"] = frame["correct"].astype("float64") / draws
    for name, label, by in (("clean", CLEAN, _IMAGE), ("null", NULL, [*_IMAGE, "norm", "eps"])):
        known = frame.loc[(frame["attack"] == label) & frame["accuracy"].notna(), [*by, "accuracy"]]
        known = known.drop_duplicates(by).rename(columns={"accuracy": name})
        frame = frame.merge(known, on=by, how="left")
    draws = frame["draws"].astype("float64").where(frame["accuracy"].notna())
    wrong = 1 - frame["accuracy"] - frame["rejected"].astype("float64") / draws
    hits = frame["hits"].astype("float64") / draws
    frame["success"] = wrong.where(frame["targets"] == "none", hits).clip(lower=0)
    frame["succeeded"] = (frame["clean"] > 0.5) & (frame["success"] > 0.5)
    return frame


def load_draws(path: str | Path) -> pd.DataFrame:
    """One row per image, attack and draw.

    Args:
        path: the results folder.

    Returns:
        defense, attack, view, norm, eps, cell, index, draw, held_out (False: a selection draw), pred, margin
        (logit of the label minus the largest other one), rejected, logits (float16; of more than ten classes only
        the ten largest, and `classes` says which).

    Raises:
        UserError: no results there, or a damaged file.
    """
    frame: pd.DataFrame = _attempts(Path(path), _draw_frame)
    return frame


def _draw_frame(lines: list[dict[str, Any]], parts: list[Part]) -> pd.DataFrame:
    import pandas as pd

    columns = ["cell", "index", "draw", "held_out", "pred", "margin", "rejected", "logits"]
    tables = [t for t in (part.table(DRAWS) for part in parts) if t is not None and len(t)]
    rows = [t.to_pandas().astype({"cell": "str"}) for t in tables] or [pd.DataFrame(columns=columns)]
    names = ["key", "defense", "attack", "view", "norm", "eps"]
    cells = _cell_frame(lines)[names]
    return cells.merge(pd.concat(rows, ignore_index=True), left_on="key", right_on="cell").drop(columns="key")


@dataclass(frozen=True, eq=False)
class Results:
    """Everything that tables are made of.

    Args:
        cells: see `load_cells`.
        records: see `load_results`.
        votes: `cell`, `index`; `majority` and `mean_logit`: whether the vote of the held-out draws is right (1, 0, or
            NaN where the draws do not tell); `newly_wrong`: number of held-out draws in which the clean image is right
            and the attack has what it wants (NaN without the clean image).
    """

    cells: pd.DataFrame
    records: pd.DataFrame
    votes: pd.DataFrame


def read_results(path: str | Path) -> Results:
    """Read all that tables need, each file once.

    Raises:
        UserError: no results there, or a damaged file.
    """
    from bench.votes import clean_draws, vote_frame

    def read(lines: list[dict[str, Any]], parts: list[Part]) -> Results:
        cells = _cell_frame(lines)
        owner = cells.groupby(_IMAGE[:-1], sort=False).ngroup()
        unattacked = frozenset(cells.loc[cells["attack"] == CLEAN, "key"])
        of_clean = [replace(part, keys=part.keys & unattacked) for part in parts]
        clean = clean_draws(_pairs(of_clean), dict(zip(cells["key"], owner, strict=True)))
        return Results(cells, _result_frame(lines, parts), vote_frame(_pairs(parts), clean))

    results: Results = _attempts(Path(path), read)
    return results


def _pairs(parts: list[Part]) -> Iterator[tuple[Any, Any]]:
    for part in parts:
        if part.keys:
            yield part.table(RECORDS, ["cell", "index", "label", "target"]), part.table(DRAWS)
