"""Arithmetic of an attack's search, without torch."""

from __future__ import annotations

from dataclasses import dataclass

from defenses.utils.errors import UserError, unknown
from defenses.utils.json_values import JsonView
from defenses.utils.precision import PRECISIONS, Precision


@dataclass(frozen=True)
class Compute:
    """Arithmetic of a defense while an attack searches; verdicts, certificates and audits are in float32.

    Args:
        precision: "float32"; "tf32": float32 matrices are multiplied in TF32; "bf16": autocast to bfloat16, with logits
            and the images' gradients in float32.
        channels_last: weights of convolutions are in the order NHWC, and features follow; those of registered defenses
            always are.

    Raises:
        UserError: a value of another kind.
    """

    precision: Precision = "float32"
    channels_last: bool = False

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise unknown("precision", str(self.precision), PRECISIONS)
        if not isinstance(self.channels_last, bool):
            raise UserError(f"channels_last is {self.channels_last!r}; it must be true or false")

    @property
    def plain(self) -> bool:
        """Return True for float32 in the order that the weights have, which adds nothing to the key of a cell."""
        return self == Compute()

    @property
    def label(self) -> str:
        """Return the settings that differ from plain float32, as "bf16, channels_last"; "" without any."""
        precision = () if self.precision == "float32" else (self.precision,)
        return ", ".join((*precision, *(("channels_last",) if self.channels_last else ())))

    def identity(self) -> JsonView:
        """Return what it adds to the identity of a cell."""
        return {} if self.plain else {"compute": [self.precision, self.channels_last]}
