"""Shards: the numbered parts of a board that several machines run, as "3/16"."""

from __future__ import annotations

import re
from typing import NamedTuple

from defenses.utils.errors import UserError
from defenses.utils.text import clean

_FORM = re.compile(r"([1-9]\d{0,5})/([1-9]\d{0,5})", re.ASCII)


class Shard(NamedTuple):
    """A shard of a board.

    Args:
        number: from 1.
        of: number of shards.
    """

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Return the shard that a text names.

        Raises:
            UserError: it names none.
        """
        form = _FORM.fullmatch(text)
        if form is None or int(form[1]) > int(form[2]):
            raise UserError(f'"{clean(text)}" is no shard; give its number and how many there are, as 1/16 to 16/16')
        return cls(int(form[1]), int(form[2]))

    @property
    def folder(self) -> str:
        """Return the name of its results folder, below that of all shards."""
        return f"{self.number}-of-{self.of}"

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"
