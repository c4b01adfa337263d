"""Run a poisoning board: finished trials are skipped, and trials that share a training share its model."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from tqdm import tqdm

from bench.execution.sources import Sources
from bench.store.environment import RunRecord, describe_run
from bench.store.folder import Store, write_atomic
from bench.tracks.poisoning.board import PoisonBoard, Trial
from bench.tracks.poisoning.records import PLAN, SCHEMA, TRIALS, TrialRecord, read_plan, read_trials
from bench.tracks.poisoning.training import Trainer, Victim
from defenses.data.dataset import dataset_info
from defenses.utils.checksums import with_checksum
from defenses.utils.errors import UserError
from defenses.utils.hints import hint

T = TypeVar("T")


def run_poisoning(
    board: PoisonBoard,
    folder: Path,
    *,
    weights_root: Path | None = None,
    data_root: Path | None = None,
    retry_errors: bool = False,
    quiet: bool = False,
) -> list[str]:
    """Run the trials that are not finished.

    Writes <folder>/plan.json (the board, the labels of the test images, versions and commands) and trials.jsonl, a
    line for each trial with the predicted class of every test image. Each line is written whole or not at all.

    Args:
        board: the board.
        folder: of results.
        weights_root: where weights are looked for first.
        data_root: where data sets lie.
        retry_errors: run trials again that ended in an error.
        quiet: no progress.

    Returns:
        A line for every error on record among the planned trials.

    Raises:
        UserError: bad input, or a folder that is in use or of another board; finished trials are kept.
    """
    store = Store(folder)
    trials = board.trials(dataset_info(board.dataset, root=data_root))
    with store.lock("poisoning") as acquired:
        if not acquired:
            raise UserError(f"another process runs {folder}; wait for it, or choose another folder with --out")
        _check_folder(folder, board)
        lines = read_trials(folder)
        done = {key for key, line in lines.items() if not (retry_errors and line["error"])}
        sources = Sources()
        done -= {t.key for t in trials if t.purifier and t.key in done and _reason_against(sources, t, lines)}
        pending = [t for t in trials if t.key not in done]
        trainer = Trainer(board, weights_root=weights_root, data_root=data_root) if pending else None
        if trainer:
            torch.set_num_threads(board.threads)
            run = describe_run(board.threads, 0, "cpu")
            _write_plan(folder, board, trials, run, trainer.test.y.tolist())
            _run_all(folder, pending, trainer, lines, run["id"], quiet)
            run["finished"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        _write_plan(folder, board, trials, run if trainer else None)
    return [f"{t.title()}: {lines[t.key]['error']}" for t in trials if lines[t.key]["error"]]


def _check_folder(folder: Path, board: PoisonBoard) -> None:
    """Refuse a folder with results of another board."""
    if (folder / "parts").is_dir() or (folder / "plan.jsonl").is_file():
        raise UserError(f"{folder} holds the results of a board of attacks; choose another folder with --out")
    if (folder / PLAN).is_file() and (name := read_plan(folder)["board"]["name"]) != board.name:
        raise UserError(f'{folder} holds results of "{name}", not of "{board.name}"; choose another folder with --out')


def _write_plan(
    folder: Path, board: PoisonBoard, trials: list[Trial], run: RunRecord | None, labels: list[int] | None = None
) -> None:
    """Write the plan, with the runs of the earlier one and the given run."""
    earlier = read_plan(folder) if (folder / PLAN).is_file() else {"runs": [], "labels": []}
    runs = [*(r for r in earlier["runs"] if run is None or r["id"] != run["id"]), *([run] if run else [])]
    content = {
        "schema": SCHEMA,
        "board": {
            "name": board.name,
            "title": board.title,
            "dataset": board.dataset,
            "target": board.target,
            "trigger": asdict(board.trigger),
            "recipe": {**vars(board.recipe), "phases": [p.described() for p in board.recipe.phases]},
            "purifiers": {p.label: p.fingerprint for p in board.purifiers},
            "sources": dict(board.sources),
        },
        "labels": labels or earlier["labels"],
        "trials": [_about(t) for t in trials],
        "runs": runs,
    }
    write_atomic(
        folder / PLAN, json.dumps(with_checksum(json.loads(json.dumps(content))), indent=1, sort_keys=True) + "\n"
    )


def _about(trial: Trial) -> TrialRecord:
    """Return the entry of a trial in the plan."""
    return {
        "key": trial.key,
        "training": trial.training,
        "attack": trial.poison.kind,
        "ratio": float(trial.poison.ratio),
        "purifier": trial.purifier.label if trial.purifier else "",
        "cleaning": trial.cleaning,
        "seed": trial.seed,
    }


def _run_all(
    folder: Path, pending: list[Trial], trainer: Trainer, lines: dict[str, TrialRecord], run: str, quiet: bool
) -> None:
    """Run trials, and write their lines after every training."""
    by_training: dict[str, list[Trial]] = {}
    for trial in pending:
        by_training.setdefault(trial.training, []).append(trial)
    with tqdm(total=len(pending), unit="trial", disable=quiet) as bar:
        for training, group in by_training.items():
            bar.set_postfix_str(group[0].title())
            checkpoint = folder / f".{training}.checkpoint.pt"
            start = time.perf_counter()
            victim, error = _attempt(partial(trainer.victim, group[0], checkpoint))
            seconds = round(time.perf_counter() - start, 2)
            for trial in group:
                result = _predictions(trainer, trial, victim, error)
                about = {"key": trial.key, "run": run, "seconds_training": seconds}
                if trial.purifier and (entries := Sources().of_defense(trial.purifier)):
                    about["sources"] = entries
                lines[trial.key] = with_checksum({**about, **result})
                bar.update()
            text = "".join(json.dumps(line, sort_keys=True, separators=(",", ":")) + "\n" for line in lines.values())
            write_atomic(folder / TRIALS, text)


def _reason_against(sources: Sources, trial: Trial, lines: Mapping[str, TrialRecord]) -> str:
    """Return why a finished trial is run again: its purifier is code of the user that has changed; "" if it holds."""
    reason = sources.reason_against(trial.purifier, lines[trial.key]) if trial.purifier else ""
    if reason:
        hint(f"{trial.title()}: finished, but run again ({reason})")
    return reason


def _predictions(trainer: Trainer, trial: Trial, victim: Victim | None, error: str) -> Mapping[str, object]:
    """Return the predictions of a trial, or the error that prevented them."""
    if victim is None:
        return {"error": error}
    answers, error = _attempt(partial(trainer.answers, victim.network, trial))
    if answers is None:
        return {"error": error}
    return {"error": "", "poisoned": victim.poisoned, "validation": victim.validation, **asdict(answers)}


def _attempt(task: Callable[[], T]) -> tuple[T | None, str]:
    """Return (the result, ""); or (None, the error in one line), so that other trials go on."""
    try:
        return task(), ""
    except UserError as problem:
        return None, str(problem)
    except Exception as problem:
        return None, f"{type(problem).__name__}: {problem}".splitlines()[0]
