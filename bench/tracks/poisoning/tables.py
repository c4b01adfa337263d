"""Accuracy and attack success of poisoned models, as a frame and as tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bench.analysis.columns import with_columns
from bench.report.files import FORMATS
from bench.report.format import interval as interval_text
from bench.report.html import to_html
from bench.report.latex import to_latex
from bench.report.plain import to_csv, to_markdown, to_text
from bench.report.table import Table
from bench.stats.bootstrap import Interval, over_trainings
from bench.stats.proportions import wilson
from bench.store.folder import write_atomic
from bench.store.kinds import folder_named, refuse_other_kind
from bench.tracks.poisoning.records import CONTROL, TrialRecord, read_plan, read_trials
from defenses.utils.json_values import JsonView

if TYPE_CHECKING:
    import pandas as pd

ROW = ("attack", "ratio", "purifier", "cleaning")
METRICS = {  # column: heading
    "clean": "clean accuracy",
    "asr": "attack success",
    "control_asr": "the same, not poisoned",
    "robust": "right with trigger",
}
_WIDTH = 120
_TYPES = {"low": "float64", "high": "float64", "n": "int64", "mean": "float64"}
_COLUMNS = {
    "attack": "str",
    "ratio": "float64",
    "purifier": "str",
    "cleaning": "str",
    "poisoned": "Int64",
    "seeds": "int64",
    **{f"{name}_{end}": kind for name in METRICS for end, kind in _TYPES.items()},
    "status": "str",
}

Shares = npt.NDArray[np.float64]


def shares_of(clean: npt.ArrayLike, triggered: npt.ArrayLike, labels: npt.ArrayLike, target: int) -> dict[str, Shares]:
    """Return the shares that the metrics are means of, by trained model and image.

    Args:
        clean: predicted classes of clean images, int [trainings, images].
        triggered: predicted classes of images with the trigger, int [trainings, images].
        labels: int [images].
        target: class that the trigger shall produce; its images count in `clean` alone.

    Returns:
        "clean": right on the clean image, [trainings, images]; of images that are not of class `target`, [trainings,
        others]: "asr", the trigger gives `target`, and "robust", the image with the trigger is still right.
    """
    y = np.asarray(labels)
    others = y != target
    predicted, with_trigger = np.asarray(clean), np.asarray(triggered)[:, others]
    return {
        "clean": (predicted == y).astype(float),
        "asr": (with_trigger == target).astype(float),
        "robust": (with_trigger == y[others]).astype(float),
    }


def interval(shares: Shares) -> Interval:
    """Return the mean with its 95% interval over images and trainings; Wilson's over images where all agree.

    Args:
        shares: in [0, 1], [trainings, images].
    """
    mean = over_trainings(shares)
    if np.isnan(mean.low):
        low, high = wilson(mean.value * mean.n, mean.n)
        return Interval(mean.value, float(low), float(high), mean.n)
    return Interval(mean.value, max(0.0, mean.low), min(1.0, mean.high), mean.n)


@with_columns
def load_poisoning(path: str | Path) -> pd.DataFrame:
    """Read the accuracy and attack success of poisoned trainings from a folder of `purebench poison`.

    Args:
        path: the folder.

    Returns:
        A row per attack, ratio, purifier and way of cleaning, over the seeds of the training, in board order.
        Columns: those of `purebench columns load_poisoning`.

    Raises:
        UserError: results of another kind or none, or a damaged plan.
    """
    import pandas as pd

    folder = folder_named(path)
    refuse_other_kind(folder, "load_poisoning")
    plan, lines = read_plan(folder), read_trials(folder)
    groups: dict[tuple[Any, ...], list[TrialRecord]] = {}
    for trial in plan["trials"]:
        line = lines.get(trial["key"], {"error": "not run"})
        groups.setdefault(tuple(trial[name] for name in ROW), []).append(line)
    labels, target = plan["labels"], plan["board"]["target"]
    shares = {row: _shares(members, labels, target) for row, members in groups.items()}
    rows = []
    for row, members in groups.items():
        whole = [line for line in members if not line["error"]]
        control = shares.get((CONTROL, 0.0, *row[2:]), {}).get("asr")
        metrics = {**shares[row], **({"control_asr": control} if control is not None else {})}
        about = {"poisoned": whole[0]["poisoned"] if whole else None, "seeds": len(whole)}
        rows.append({**dict(zip(ROW, row, strict=True)), **about, **_columns(metrics), "status": _status(members)})
    return pd.DataFrame(rows, columns=list(_COLUMNS)).astype(_COLUMNS)


def _shares(lines: Iterable[TrialRecord], labels: list[int], target: int) -> Mapping[str, Shares]:
    """Return the shares of the trials without error; empty where there are none."""
    whole = [line for line in lines if not line["error"]]
    if not whole:
        return {}
    return shares_of([line["clean"] for line in whole], [line["triggered"] for line in whole], labels, target)


def _columns(shares: Mapping[str, Shares]) -> dict[str, float]:
    """Return mean, low, high and n of every metric; NaN and 0 where it is missing."""
    columns: dict[str, float] = {}
    for name in METRICS:
        mean = interval(shares[name]) if name in shares else Interval(np.nan, np.nan, np.nan, 0)
        columns |= {f"{name}_{end}": getattr(mean, end) for end in ("low", "high", "n")}
        columns[f"{name}_mean"] = mean.value
    return columns


def _status(lines: list[TrialRecord]) -> str:
    """Return "ok", or the missing seeds and the first error."""
    errors = [line["error"] for line in lines if line["error"]]
    if not errors:
        return "ok"
    done = len(lines) - len(errors)
    return f"partial: {done} of {len(lines)} seeds; {errors[0]}" if done else f"error: {errors[0]}"


def poisoning_table(folder: Path, frame: pd.DataFrame) -> Table:
    """Return the summary as a table in percent.

    Args:
        folder: of the board, for its title.
        frame: of `load_poisoning`.
    """
    board = read_plan(folder)["board"]
    rows = []
    for row in frame.itertuples():
        ratio = f"{row.ratio:g}" if row.attack != CONTROL else "–"
        poisoned = "–" if str(row.poisoned) == "<NA>" else str(row.poisoned)
        cells = [str(row.attack), ratio, str(row.purifier) or "–", str(row.cleaning), poisoned]
        rows.append((*cells, *(_cell(row, name) for name in METRICS), "" if row.status == "ok" else str(row.status)))
    columns = ("attack", "ratio", "purifier", "cleans", "poisoned", *(f"{m} % [95%]" for m in METRICS.values()), "note")
    title = f"{board['title']}: {board['dataset']}, {int(frame['seeds'].max())} seeds of the training"
    return Table(title, columns, tuple(rows), _notes(board, frame), left=4, tail=1)


def _cell(row: object, name: str) -> str:
    """Return a metric with its interval, in percent."""
    mean, low, high = (getattr(row, f"{name}_{end}") for end in ("mean", "low", "high"))
    return interval_text(mean, low, high, 1)


def _notes(board: JsonView, frame: pd.DataFrame) -> tuple[str, ...]:
    """Return the footnotes of the table."""
    trigger, target = board["trigger"], board["target"]
    all_images, others = int(frame["clean_n"].max()), int(frame["asr_n"].max())
    return (
        f"trigger: a square of {trigger['size']}x{trigger['size']} pixels of value {trigger['value']:g}, bottom right; "
        f"it is to give class {target}, and stands there before an image is purified",
        "ratio: of badnets the share of all training images (others' are given the trigger and the label); of "
        "clean-label that of the images of the target's class, whose labels stay right",
        f"clean accuracy: of all {all_images} test images; attack success: images of other classes ({others}) that "
        "the trigger turns into the target; the same, not poisoned: what a model of unpoisoned data, cleaned alike, "
        "makes of the same images; right with trigger: those that keep their true class",
        "cleans: none, train (training images, once, before training), test (images before they are classified), both; "
        "purifiers and the checkpoint's choice use clean images that the attacker never saw, and the trigger is not "
        "chosen against the purifier: no worst case",
        "[ ]: 95% over test images and trainings (hierarchical bootstrap); Wilson's over images where all "
        "trainings and images agree",
    )


def write_poisoning_tables(folder: Path) -> dict[str, str]:
    """Write the table of a folder in every format, and return the texts by format.

    Raises:
        UserError: as `load_poisoning`; or the folder cannot be written.
    """
    frame = load_poisoning(folder)
    table = poisoning_table(folder, frame)
    texts = {
        "text": to_text(table, _WIDTH),
        "markdown": to_markdown(table),
        "csv": to_csv(frame),
        "latex": to_latex(table),
        "html": to_html(table, table.title),
    }
    for form, text in texts.items():
        write_atomic(folder / FORMATS[form], text)
    return texts
