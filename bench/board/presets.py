"""Read presets, the protocols of published evaluations and ours: leaderboards/presets/*.toml. Imports no torch.

A preset has the attacks, draws and null attacks of a board; data, images, defenses and seed are the board's. A preset
that has radii for certain data sets requires an eps on others.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import leaderboards
from bench.board.labels import with_labels
from defenses.utils.errors import UserError, unknown
from defenses.utils.json_values import Json, JsonView
from defenses.utils.names import portable

_FOLDER = Path(leaderboards.__file__).parent / "presets"
_FIXED = ("attack", "protocol", "verdict", "nulls", "budget")  # keys of a preset that a board must not have too
_APART = ": "  # between the preset and the label of an attack, in the label of a board with several protocols


@dataclass(frozen=True)
class Preset:
    """A protocol of an evaluation.

    Args:
        name: name of the preset.
        summary: description, in a line.
        source: publication of the protocol.
        differs: differences from our `standard`, and from the publication.
        eps: radii by data set and norm; empty: none. Its index list is for these data sets too.
        norms: norms that it can be run in; the first is the default.
        stochastic: False: it refuses randomised defenses.
        parts: keys of a board.
        url: of the publication, as in the files of claims; "": none.
        claimed_attack: of the claim that the preset follows, where its publication has several; "": any.
    """

    name: str
    summary: str
    source: str
    differs: str
    eps: Mapping[str, Mapping[str, str]]
    norms: tuple[str, ...]
    stochastic: bool
    parts: JsonView
    url: str = ""
    claimed_attack: str = ""

    def radii(self, dataset: str) -> Mapping[str, str] | None:
        """Return the radii for a data set by norm, "imagenet/Crop288" counting as "imagenet"; None without any."""
        return self.eps.get(dataset.partition("/")[0])

    def attacks(self) -> list[Json]:
        """Return its attack entries, for a board of several protocols: each label begins with the preset's name."""
        entries = with_labels(self.parts["attack"])
        return [{**entry, "label": f"{self.name}{_APART}{entry['label']}"} for entry in entries]

    def as_dict(self) -> dict[str, str]:
        """Return the entry of a manifest."""
        return {"name": self.name, "source": self.source, "differs": self.differs}


def preset_names() -> list[str]:
    """Return the names of all presets."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def find_preset(name: str) -> Preset:
    """Return the preset of a name.

    Raises:
        UserError: unknown name.
    """
    if name not in preset_names():
        raise unknown("preset", str(name), preset_names())
    return _read(name)


@lru_cache(maxsize=32)
def _read(name: str) -> Preset:
    raw = tomllib.loads((_FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    about = raw.pop("preset")
    norms, eps, stochastic = tuple(about.pop("norms")), about.pop("eps", {}), about.pop("stochastic", True)
    return Preset(name=name, parts=raw, eps=eps, norms=norms, stochastic=stochastic, **about)


def protocol_of(label: str) -> str:
    """Return the preset that an attack of a board comes from, by its label; "": none."""
    name, apart, _ = label.partition(_APART)
    return name if apart and name in preset_names() else ""


def with_preset(raw: Json) -> tuple[Json, Preset | None]:
    """Merge a board with its preset.

    Args:
        raw: the parsed board, its keys checked.

    Returns:
        The board with the keys of its preset, and the preset; a board without "preset" as it is, and None.

    Raises:
        UserError: unknown preset, a board that has keys of the preset, or a data set or norm that does not fit.
    """
    if "preset" not in raw:
        return raw, None
    preset = find_preset(raw["preset"])
    for key in _FIXED:
        if key in raw:
            raise UserError(f'"{key}" is what the preset "{preset.name}" says; leave out the one or the other')
    table, radii = raw.get("threat", {}), preset.radii(raw.get("dataset", ""))
    norm = norm_of(preset, table)
    threat = {"norm": norm, **({"eps": radii[norm]} if radii and norm in radii else {}), **table}
    if "eps" not in threat:
        raise UserError(_without_eps(preset, raw.get("dataset", ""), norm))
    parts = {key: value for key, value in preset.parts.items() if key != "indices" or radii is not None}
    return {**parts, **raw, "threat": threat}, preset


def norm_of(preset: Preset, threat: JsonView) -> str:
    """Return the norm of a board, in the preset's spelling.

    Args:
        preset: the preset.
        threat: of the board.

    Raises:
        UserError: the preset is no protocol of that norm.
    """
    norm = str(threat.get("norm", preset.norms[0]))
    match = next((n for n in preset.norms if n.lower() == norm.lower()), None)
    if match is None:
        elsewhere = "" if preset.name == "standard" else '; "standard" takes Linf, L2 and L1'
        raise UserError(
            f'the preset "{preset.name}" is a protocol of {", ".join(preset.norms)} and not of {norm}{elsewhere}'
        )
    return match


def _without_eps(preset: Preset, dataset: str, norm: str) -> str:
    radii = [f"{eps} for {name} ({of})" for name, by_norm in preset.eps.items() for of, eps in by_norm.items()]
    problem = f"has eps {', '.join(radii)} alone" if radii else "has no eps of its own"
    remedy = 'say it: --eps 1/5, in Python eps="1/5", or in a board eps = "1/5" under [threat]'
    return f'the preset "{preset.name}" {problem}; for {portable(dataset)} ({norm}) {remedy}'


def check_defenses(preset: Preset, random: Sequence[str]) -> None:
    """Refuse randomised defenses where the preset does.

    Args:
        preset: the preset.
        random: labels of the randomised defenses of the board.

    Raises:
        UserError: a defense is refused.
    """
    if random and not preset.stochastic:
        raise UserError(
            f'"{random[0]}" is randomised, which the preset "{preset.name}" refuses as RobustBench does; '
            "take --preset standard for it"
        )
