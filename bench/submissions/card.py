"""The card of a submitted row: what its defense is, who made it, and what was published of it."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from bench.analysis.claim_files import Claim, claims_of
from defenses.utils.errors import UserError, unknown
from defenses.utils.json_values import Json
from defenses.zoo.cards import Card

_TOLD, _THERE = ("title", "authors", "licence", "summary"), ("venue", "url")  # not empty; there, "" without a paper


def read_card(path: Path) -> Json:
    """Return the parsed card.

    Raises:
        UserError: no such file, or no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path.name}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path.name} is not a TOML file: {error}") from None


def card_problems(path: Path, label: str) -> Iterator[str]:
    """Yield what a card lacks or has wrong, a line each.

    Args:
        path: its file.
        label: of the defense.
    """
    if not path.is_file():
        yield f"{path.name} is missing"
        return
    try:
        raw = read_card(path)
        for key in (*_TOLD, *_THERE):
            if not isinstance(raw.get(key), str):
                yield f'{path.name} has no {key}; write {key} = "..."'
            elif key in _TOLD and not raw[key].strip():
                yield f"{path.name}: {key} is empty"
        known = [*(field.name for field in fields(Card)), "claims"]
        yield from (f"{path.name}: {unknown('key', key, known)}" for key in raw if key not in known)
        card_claims(raw, label)
    except UserError as error:
        yield from map(str, error.args)


def card_claims(raw: Json, label: str) -> list[Claim]:
    """Return the claims of a card, tables [[claims]] as in a file of claims; title and url of the card hold for them.

    Args:
        raw: the parsed card.
        label: of the defense.

    Raises:
        UserError: a claim cannot be read.
    """
    if "claims" not in raw:
        return []
    shared = {"defense": label, "paper": raw.get("title"), "url": raw.get("url")}
    return claims_of({key: value for key, value in shared.items() if value} | {"claims": raw["claims"]}, "card.toml")
