"""All pictures of results folders, by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Set
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Unpack

import pandas as pd
from matplotlib.axes import Axes

from bench.analysis.loaders import load_audits
from bench.figures.frames import Threat, threats_of
from bench.figures.images import GRID, TRAJECTORY, Roots, of_images
from bench.figures.numbers import numbers_of, of_draws
from bench.figures.picture import Picture
from bench.plots.attacks import attacks, draw_curves, majority_curves, submission_curves
from bench.plots.checks import check_rows, checks
from bench.plots.claims import claims
from bench.plots.curves import (
    MOST,
    certified,
    convergence,
    corruptions,
    effort_lines,
    radius,
    radius_rows,
)
from bench.plots.defenses import clean_robust, cost, ranks
from bench.plots.margins import margin_bins, margins
from bench.plots.matrices import audit, matrix
from bench.store.kinds import NO_RESULTS, folder_named, kind_of
from bench.tracks.corruptions.tables import load_corruptions
from bench.tracks.smoothing.tables import load_smoothing
from defenses.utils.errors import UserError, unknown
from defenses.utils.text import counted, file_name

Draw = Callable[[pd.DataFrame], Axes]
NAMES = {
    "ranks": "worst case of each defense with its interval and range of ranks",
    "clean-robust": "worst case of each defense against its clean accuracy",
    "cost": "worst case of each defense against the evaluations of its attacks",
    "matrix": "which attack breaks each image of each defense",
    "claims": "published robust accuracy against what was measured here",
    "attacks": "accuracy of a defense under each attack",
    "draws": "accuracy of a random defense against M: all of M draws right, and their majority",
    "margins": "margins of a defense on clean images and in the worst case",
    "audit": "outcome of each check of the audits",
    "checks": "what each check of the audits measures, with its limit",
    "radius": "accuracy of audited defenses against the radius",
    "convergence": "accuracy of audited defenses against the effort of the attack",
    "corruptions": "accuracy of each defense against the severity of corruptions",
    "certified": "certified accuracy against the L2 radius",
    GRID: "images of the strongest attack on a defense: clean, adversarial, and the difference",
    TRAJECTORY: "an adversarial image after each step of its purification, with its energy or score",
}
BY_NAME = {GRID, TRAJECTORY}  # drawn only if they are named: they need the data set, or the model


def pictures(
    *results: str | Path, only: Collection[str] = (), defense: str | None = None, **roots: Unpack[Roots]
) -> Iterator[Picture]:
    """Yield the pictures of results folders, each drawn when it is asked for.

    Args:
        *results: results folders of any kind.
        only: names of pictures; empty: all that the results have, but for `BY_NAME`.
        defense: label of the defense of *attacks*, *draws* and of pictures of images; None: all.
        **roots: folders of data sets, weights and code, for pictures of images.

    Raises:
        UserError: an unknown name or defense, a folder without results, or a damaged file.
    """
    for name in only:
        if name not in NAMES:
            raise unknown("picture", name, NAMES)
    wanted = set(only) or NAMES.keys() - BY_NAME
    found: set[str] = set()
    for folder in [folder_named(path) for path in results]:
        for picture in _of_folder(folder, defense, wanted, roots):
            if picture.name in wanted:
                slug, number = picture.slug, 1
                while slug.lower() in found:
                    number += 1
                    slug = f"{picture.slug}-{number}"
                found.add(slug.lower())
                yield replace(picture, slug=slug)
    if not found:
        folders, names = ", ".join(map(str, results)), " or ".join(only)
        if not folders:
            raise UserError("name a results folder, as results/quickstart")
        raise UserError(f"there is no picture{names and f' {names}'} of {folders}")


def figure(name: str, results: str | Path, *, defense: str | None = None, **roots: Unpack[Roots]) -> Picture:
    """Return a picture of a results folder.

    Args:
        name: of the picture, as "ranks"; `purebench figures --help` has all.
        results: a results folder.
        defense: label, for the pictures of a single defense.
        **roots: data_root, weights_root and code, folders of data sets, weights and your own defenses, for
            "adversarial-grid" and "trajectory".

    Returns:
        The picture: `.data`, `.svg`, `.figure()`, `.save("x.pdf")`; notebooks show it.

    Raises:
        UserError: an unknown name, no such picture, or several.
    """
    found = list(pictures(results, only=[name], defense=defense, **roots))
    if len(found) > 1:
        names = ", ".join(picture.slug for picture in found[:5])
        raise UserError(f"{results} has several: {names}; name the defense, or draw from its frame (bench.plots)")
    return found[0]


def width_of(text: str | None) -> float | None:
    """Return a width as "84mm", "8.4cm" or "3.3in" in millimetres.

    Raises:
        UserError: no such width, or one below 20 or above 1,000 millimetres.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?) *(mm|cm|in)", text)
    width = float(match[1]) * {"mm": 1, "cm": 10, "in": 25.4}[match[2]] if match else 0.0
    if not 20 <= width <= 1000:
        raise UserError(f'width is "{text}"; write it as 84mm, 8.4cm or 3.3in, from 20mm to 1000mm')
    return width


def _of_folder(folder: Path, defense: str | None, wanted: Set[str], roots: Roots) -> Iterator[Picture]:
    kind = kind_of(folder)
    if kind is None:
        raise UserError(NO_RESULTS.format(folder))
    if kind == "a board":
        threats = list(threats_of(folder))
        for threat in threats:
            yield from of_board(threat, wanted)
            yield from of_rows(threat, defense, wanted)
            if wanted & BY_NAME:
                yield from of_images(threat, defense, wanted, **roots)
        if "claims" in wanted and threats:
            yield from of_claims(threats[0].frames.claimed)
    if kind in ("a board", "audits"):
        yield from of_audits(load_audits(folder))
    elif kind == "accuracy under corruptions":
        yield from of_track("corruptions", corruptions, load_corruptions(folder), folder)
    elif kind == "certified radii":
        yield from of_track("certified", certified, load_smoothing(folder), folder)


def of_board(threat: Threat, wanted: Set[str] = NAMES.keys()) -> Iterator[Picture]:
    """Yield the pictures of all defenses of a board under one threat, those of the wanted names."""
    suffix = threat.suffix
    if wanted & {"ranks", "clean-robust", "cost"}:
        leaders = threat.of("leaders")
        yield from _of_leaders(leaders[leaders["worst_mean"].notna()], threat)
    if "matrix" in wanted and len(worst := threat.of("worst")):
        images, of = worst["image"].nunique(), counted(worst["defense"].nunique(), "defense")
        text = f"Which attack breaks each of {images} images of {of} on {threat.title}; pale: few draws are wrong."
        yield _picture("matrix", suffix, text, worst, matrix)


def of_claims(claimed: pd.DataFrame) -> Iterator[Picture]:
    """Yield the picture of the rows of `bench.claims_table` that have both numbers, if any."""
    claimed = claimed[claimed[["claimed_robust", "measured_robust"]].notna().all(axis=1)]
    counts = ", ".join(f"{n} {verdict}" for verdict, n in claimed["verdict"].value_counts(sort=False).items())
    if counts:
        yield _picture("claims", "", f"Published against measured robust accuracy: {counts}.", claimed, claims)


def _of_leaders(leaders: pd.DataFrame, threat: Threat) -> Iterator[Picture]:
    """Yield the pictures of rows of `bench.leaderboard`."""
    if leaders.empty:
        return
    best, suffix = leaders.iloc[0], threat.suffix
    share = f"{100 * best['worst_mean']:.1f} %"
    these = f"{counted(len(leaders), 'defense')} on {threat.title}; the best, {best['defense']}, keeps {share}"
    yield _picture("ranks", suffix, f"Worst case and range of ranks of {these}.", leaders, ranks)
    yield _picture("clean-robust", suffix, f"Worst case against clean accuracy of {these}.", leaders, clean_robust)
    if len(known := leaders[leaders["evaluations_per_image"] > 0]):
        text = (
            f"Worst case against the evaluations of the attacks, of {counted(len(known), 'defense')} on {threat.title}."
        )
        yield _picture("cost", suffix, text, known, cost)


def of_rows(threat: Threat, defense: str | None = None, wanted: Set[str] = NAMES.keys()) -> Iterator[Picture]:
    """Yield the pictures of single defenses under one threat, those of the wanted names.

    Args:
        threat: of the board.
        defense: label; None: all.
        wanted: names of pictures.

    Raises:
        UserError: no such defense.
    """
    targeted = threat.setting["targets"] != "none"
    known = [str(label) for label in threat.of("leaders")["defense"].unique()]
    if defense is not None and defense not in known:
        raise unknown("defense", defense, known)
    for label in known if defense is None else [defense]:
        suffix = f"{threat.suffix}-{file_name(label) or 'x'}"
        if "attacks" in wanted:
            attacked = _of_label(threat.of("attacked"), label)
            if count := int(attacked["robust_mean"].notna().sum()):
                what = "Draws without the target" if targeted else "Accuracy"
                text = f"{what} of {label} under {count} attacks and references on {threat.title}."
                yield _picture("attacks", suffix, text, attacked, attacks)
        if "draws" in wanted:
            records = threat.frames.records(label, threat.setting)
            several = records[(records["draws"] > 1) & (records["status"] == "ok")]
            if len(several):
                text = f"Images of {label} that are right in all and in most of M draws, on {threat.title}."
                curves = (
                    submission_curves(several),
                    majority_curves(several, threat.frames.votes(label, threat.setting)),
                )
                draw = partial(draw_curves, *curves, str(threat.setting["targets"]))
                yield Picture("draws", f"draws{suffix}", text, records, of_draws(*curves), draw)
        if "margins" in wanted:
            frames, setting = threat.frames, threat.setting
            bins = margin_bins(frames.margins(label, setting), frames.worst_of(label, setting))
            if len(bins):
                text = f"Margins of {label} on clean images and in the worst case, on {threat.title}."
                yield _picture("margins", suffix, text, bins, margins)


def _of_label(frame: pd.DataFrame, label: str) -> pd.DataFrame:
    return frame[frame["defense"] == label]


def of_audits(audits: pd.DataFrame, wanted: Set[str] = NAMES.keys()) -> Iterator[Picture]:
    """Yield the pictures of the rows of `bench.load_audits`, those of the wanted names, of one threat after another."""
    settings = audits.groupby(["dataset", "norm", "eps"], sort=False)
    for (dataset, norm, eps), of in settings:
        suffix = f"-{file_name(f'{dataset}-{norm}-{eps}')}" if len(settings) > 1 else ""
        at = f"audited at {norm} {eps} on {dataset}"
        for part in _parts(of):
            names = part["defense"].unique()
            who = names[0] if len(names) == 1 else counted(len(names), "defense")
            if "audit" in wanted:
                yield _picture("audit", suffix, f"Outcome of each check of {who}, {at}.", part, audit)
            if "checks" in wanted and len(check_rows(part)):
                text = f"What each check of {who} measures, with its interval and its limit, {at}."
                yield _picture("checks", suffix, text, part, checks)
            if "radius" in wanted and len(radius_rows(part)):
                yield _picture("radius", suffix, f"Accuracy of {who} against the radius, {at}.", part, radius)
            if "convergence" in wanted and effort_lines(part):
                text = f"Accuracy of {who} against the effort of the attack, {at}."
                yield _picture("convergence", suffix, text, part, convergence)


def of_track(name: str, draw: Draw, frame: pd.DataFrame, folder: Path) -> Iterator[Picture]:
    """Yield the pictures of results that are no board."""
    for part in _parts(frame):
        yield _picture(name, "", f"{NAMES[name].capitalize()}, of {folder.resolve().name}.", part, draw)


def _parts(frame: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Yield the rows of as many defenses as a picture holds."""
    if "defense" not in frame:
        yield frame
        return
    names = list(dict.fromkeys(frame["defense"]))
    for at in range(0, len(names), MOST):
        yield frame[frame["defense"].isin(names[at : at + MOST])]


def _picture(name: str, suffix: str, alt: str, data: pd.DataFrame, draw: Draw) -> Picture:
    return Picture(name, f"{name}{suffix}", alt, data, numbers_of(name, data), partial(draw, data))
