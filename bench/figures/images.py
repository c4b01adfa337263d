"""Pictures of single images of a board: those of an attack, and one along its purification."""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

import pandas as pd

from bench.analysis.caveats import fingerprints_of
from bench.analysis.records import CLEANS
from bench.analysis.summary import WORST
from bench.figures.frames import Threat
from bench.figures.picture import Picture
from bench.spec.cell import title_of
from bench.store.manifest import read_manifest
from defenses.utils.errors import UserError
from defenses.utils.hints import warn
from defenses.utils.text import file_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bench.analysis.images import Images
    from defenses.core.defense import Purified

GRID, TRAJECTORY = "adversarial-grid", "trajectory"
_COUNT = 8


class Roots(TypedDict, total=False):
    """Folders of what pictures of images need beside the results.

    Args:
        data_root: folder of data sets.
        weights_root: folder where weights are looked for first.
        code: folder of user-defined defenses and parts; None: the current folder.
    """

    data_root: str | Path | None
    weights_root: str | Path | None
    code: str | Path | None


@dataclass(frozen=True)
class _Row:
    """A defense of a board under a threat.

    Args:
        threat: of the board.
        label: of the defense.
        seed: its training seed, of several the lowest.
        attack: label of the attack that alone breaks the most images.
        view: of that attack.
    """

    threat: Threat
    label: str
    seed: int
    attack: str
    view: str

    @property
    def under(self) -> str:
        """Defense, attack and board in words."""
        return f"{self.label} under {self.attack} on {self.threat.title}"


def of_images(threat: Threat, defense: str | None, wanted: Set[str], **roots: Unpack[Roots]) -> Iterator[Picture]:
    """Yield the pictures of images of the strongest attack on each defense under one threat, those of wanted names.

    Args:
        threat: of the board.
        defense: label; None: all whose images, and for trajectories whose purifiers, are there; a warning names others.
        wanted: names of pictures.
        **roots: see `Roots`.

    Raises:
        UserError: no stored images or no purifier of a defense that is named, another data set than that of the board,
            or a model that cannot be loaded.
    """
    for row in _rows(threat, defense):
        for name, draw in ((GRID, _grid), (TRAJECTORY, _trajectory)):
            if name not in wanted:
                continue
            try:
                picture = draw(row, roots)
            except UserError as error:
                if defense is not None:
                    raise
                warn(f"{name} of {row.label}: {error}")
            else:
                yield picture


def _rows(threat: Threat, defense: str | None) -> Iterator[_Row]:
    """Yield the defenses that are attacked."""
    cells = threat.frames.results.cells
    for leader in threat.of("leaders").to_dict("records"):
        label, attack, view = (str(leader[name]) for name in ("defense", "worst_attack", "worst_view"))
        if not attack:  # no image is broken
            of = threat.of("attacked")
            of = of[(of["defense"] == label) & of["robust_mean"].notna() & ~of["attack"].isin((*CLEANS, WORST))]
            attack, view = (str(of[name].iloc[0]) if len(of) else "" for name in ("attack", "view"))
        if attack and defense in (None, label):
            seed = int(cells.loc[cells["defense"] == label, "training_seed"].min())
            yield _Row(threat, label, seed, attack, view)


def _images(row: _Row, roots: Roots) -> Images:
    from bench.analysis.images import load_images

    setting, root = row.threat.setting, roots.get("data_root")
    of = {"norm": str(setting["norm"]), "eps": str(setting["eps"]), "training_seed": row.seed}
    return load_images(row.threat.frames.folder, row.label, row.attack, row.view, data_root=root, **of)  # type: ignore[arg-type]


def _grid(row: _Row, roots: Roots) -> Picture:
    from bench.plots.images import adversarial_grid
    from bench.spec.threat import exact

    images, setting = _images(row, roots), row.threat.setting
    count = min(_COUNT, len(images))
    eps = float(exact(str(setting["eps"]))) if setting["norm"] == "Linf" else None
    columns = {name: getattr(images, name)[:count] for name in ("index", "labels", "predictions", "shares")}
    numbers = pd.DataFrame(columns).rename(columns={"index": "image"})
    text = f"The first {count} images of {row.under}: clean, adversarial, and the difference."
    return _picture(GRID, row, text, numbers, partial(adversarial_grid, images, eps=eps, count=count))


def _trajectory(row: _Row, roots: Roots) -> Picture:
    from bench.evaluation.trajectory import purification_trajectory
    from bench.plots.images import trajectory

    defense = _purified(row, roots)
    images = _images(row, roots)
    path = purification_trajectory(defense, images.adversarial[0])
    numbers = pd.DataFrame({"step": range(len(path.values)), "value": path.values})
    text = f"Image {images.index[0]} of {row.under} after each step of its purification, and its {path.label}."
    return _picture(TRAJECTORY, row, text, numbers, partial(trajectory, path))


def _purified(row: _Row, roots: Roots) -> Purified:
    """Return the defense of a row, rebuilt as `purebench verify` does.

    Raises:
        UserError: it cannot be loaded, or has no purifier.
    """
    from bench.audit.reproduction.rebuild import rebuild_defense
    from defenses.core.defense import Purified
    from defenses.utils.parameters import canonical

    trained = fingerprints_of(read_manifest(row.threat.frames.folder), row.label)
    fingerprint = trained.get(title_of(row.label, row.seed)) or next(iter(trained.values()), None)
    if fingerprint is None:
        raise UserError(f"manifest.json does not say what {row.label} is, so that its model cannot be loaded")
    folders = {name: Path(path) for name, path in roots.items() if isinstance(path, str | Path)}
    rebuilt = rebuild_defense(canonical(fingerprint), str(row.threat.setting["dataset"]), **folders)
    if rebuilt.defense is None:
        raise UserError(f"{row.label} cannot be loaded: {rebuilt.problem}")
    if not isinstance(rebuilt.defense, Purified):
        raise UserError(f"{row.label} is no purifier before a classifier, so that it has no trajectory")
    if rebuilt.changes:
        warn(f"{row.label} is no more the defense of the results ({rebuilt.changes[0]}); drawn is that of today")
    return rebuilt.defense


def _picture(name: str, row: _Row, text: str, numbers: pd.DataFrame, draw: partial[Axes]) -> Picture:
    slug = f"{name}{row.threat.suffix}-{file_name(row.label) or 'x'}"
    return Picture(name, slug, text, numbers, numbers, draw)
