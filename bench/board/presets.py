"""Protocols of published evaluations by name, and our own: leaderboards/presets/*.toml. Nothing here imports torch.

A preset is the part of a board that says how: attacks, draws and null attacks. What is evaluated (data, images,
defenses, seed) is the board's. A preset whose radius is meant for certain data sets asks for an eps elsewhere.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from defenses.utils.errors import UserError, unknown

if TYPE_CHECKING:
    pass

_FIXED = ("attack", "verdict", "nulls", "budget")  # what a preset says, and a board that follows it must not


@dataclass(frozen=True)
class Preset:
    """A protocol by name.

    Args:
        name: of its file.
        summary: what it does, in a line.
        source: whose protocol it is.
        differs: how it differs from our `standard`, and from the publication.
        eps: its radii, by data set and norm; its images are of these data sets too. Empty: none in particular.
        norms: those that it can be run in; the first is meant where a board names none.
        stochastic: False: it refuses randomised defenses.
        parts: of a board.
    """

    name: str
    summary: str
    source: str
    differs: str
    eps: Mapping[str, Mapping[str, str]]
    norms: tuple[str, ...]
    stochastic: bool
    parts: Mapping[str, Any]

    def radii(self, dataset: str) -> Mapping[str, str] | None:
        """Its radii for a data set, "imagenet/Crop288" being "imagenet", by norm; None: it is none of its own."""
        return self.eps.get(dataset.partition("/")[0])

    def as_dict(self) -> dict[str, str]:
        """For the manifest."""
        return {"name": self.name, "source": self.source, "differs": self.differs}


def preset_names() -> list[str]:
    """The names of all presets."""
    return sorted(path.stem for path in _folder().glob("*.toml"))


def find_preset(name: str) -> Preset:
    """The preset of a name.

    Raises:
        UserError: there is none.
    """
    if name not in preset_names():
        raise unknown("preset", name, preset_names())
    return _read(name)


def _folder() -> Path:
    import leaderboards

    return Path(leaderboards.__file__).parent / "presets"


@lru_cache(maxsize=32)
def _read(name: str) -> Preset:
    raw = tomllib.loads((_folder() / f"{name}.toml").read_text(encoding="utf-8"))
    about = raw.pop("preset")
    norms, eps, stochastic = tuple(about.pop("norms")), about.pop("eps", {}), about.pop("stochastic", True)
    return Preset(name=name, parts=raw, eps=eps, norms=norms, stochastic=stochastic, **about)


def with_preset(raw: dict[str, Any]) -> tuple[dict[str, Any], Preset | None]:
    """A board with the parts of its preset, and the preset.

    Args:
        raw: the board as TOML gives it, its keys checked; without "preset" it is given back.

    Raises:
        UserError: no such preset, a board that has such parts of its own, or a data set or norm that it does not fit.
    """
    if "preset" not in raw:
        return raw, None
    preset = find_preset(raw["preset"])
    for key in _FIXED:
        if key in raw:
            raise UserError(f'"{key}" is what the preset "{preset.name}" says; leave out the one or the other')
    given, radii = raw.get("threat", {}), preset.radii(raw.get("dataset", ""))
    norm = _norm(preset, given)
    threat = {"norm": norm, **({"eps": radii[norm]} if radii and norm in radii else {}), **given}
    if "eps" not in threat:
        raise UserError(_without_eps(preset, raw.get("dataset", ""), norm))
    how = {key: value for key, value in preset.parts.items() if key != "indices" or radii is not None}
    return {**how, **raw, "threat": threat}, preset


def _norm(preset: Preset, threat: Mapping[str, Any]) -> str:
    """The norm of a board, as the preset writes it."""
    norm = str(threat.get("norm", preset.norms[0]))
    found = next((n for n in preset.norms if n.lower() == norm.lower()), None)
    if found is None:
        raise UserError(
            f'the preset "{preset.name}" is a protocol of {", ".join(preset.norms)} and not of {norm}; "standard" '
            "takes Linf, L2 and L1"
        )
    return found


def _without_eps(preset: Preset, dataset: str, norm: str) -> str:
    known = [f"{eps} for {name} ({of})" for name, radii in preset.eps.items() for of, eps in radii.items()]
    what = f"has eps {', '.join(known)} alone" if known else "has no eps of its own"
    say = 'say it: --eps 1/5, or in a board eps = "1/5" under [threat]'
    return f'the preset "{preset.name}" {what}; for {dataset} ({norm}) {say}'


def check_defenses(preset: Preset, random: Sequence[str]) -> None:
    """Refuse defenses that the protocol refuses.

    Args:
        preset: the protocol.
        random: labels of the randomised defenses of the board.

    Raises:
        UserError: it does not admit randomised ones.
    """
    if random and not preset.stochastic:
        raise UserError(
            f'"{random[0]}" is randomised, which the preset "{preset.name}" refuses as RobustBench does; '
            "take --preset standard for it"
        )
