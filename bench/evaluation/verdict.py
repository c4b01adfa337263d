"""Verdicts: draws of the deployed defense on given images, under noise that no attack has met."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bench.evaluation.batching import BatchLimit, draws_for_batch
from defenses.core.defense import Defense, UserModule
from defenses.core.noise import Noise
from defenses.utils.precision import multiplied_in

_VERDICT, _SELECTION, HELD_OUT, _KNOWN = 0x56455244, 0, 1, 2  # names of noise streams


@dataclass(frozen=True)
class Draws:
    """Draws of a defense on B images.

    Args:
        logits: float32 [D, B, K].
        rejected: bool [D, B], images that the defense refused to classify.
        held_out: bool [D]; the other draws are for selection.
        scores: float32 [D, B], of the detector; None: the defense has none.
    """

    logits: Tensor
    rejected: Tensor
    held_out: Tensor
    scores: Tensor | None = None

    @property
    def predictions(self) -> Tensor:
        """Return the predicted classes, int64 [D, B]."""
        return self.logits.argmax(-1)

    @property
    def finite(self) -> Tensor:
        """Return bool [B]: all logits and scores of all draws are finite; other images have no verdict."""
        finite = torch.isfinite(self.logits).all(-1).all(0)
        return finite if self.scores is None else finite & torch.isfinite(self.scores).all(0)

    def margins(self, y: Tensor) -> Tensor:
        """Return the logit of the label minus the largest other logit, float32 [D, B] (labels y: int64 [B])."""
        index = y.expand(len(self.logits), -1).unsqueeze(-1)
        of_label = self.logits.gather(-1, index).squeeze(-1)
        return of_label - self.logits.scatter(-1, index, -torch.inf).amax(-1)


def verdict_noise(seed: int, indices: Tensor, device: torch.device) -> Noise:
    """Return a noise stream per image (dataset indices int64 [B]); its child (HELD_OUT, d) is held-out draw d."""
    return Noise.of(seed, indices.to(device), device).child(_VERDICT)


def known_noise(seed: int, rows: int, device: torch.device) -> Noise:
    """Return equal noise streams for all rows, for an attacker who knows the seed of a then deterministic defense.

    A defense that is deployed with a fixed seed draws the same noise for every image. Noise keyed by image could not be
    found for the queries of a library: sub-batches without indices, interpolated images, starting points of other
    classes outside the ball.

    Args:
        seed: of the board.
        rows: number of streams.
        device: of the streams.
    """
    stream = Noise.of(seed, [0], device).child(_VERDICT, _KNOWN)
    return stream.rows(torch.zeros(rows, dtype=torch.int64, device=device))


@torch.no_grad()
@multiplied_in("float32")
def verdict(
    defense: Defense,
    x: Tensor,
    indices: Tensor,
    *,
    draws: int,
    selection: int,
    seed: int,
    batch: int = 2048,
    memory: BatchLimit | None = None,
    known: bool = False,
) -> Draws:
    """Judge images on the deployed defense, in float32.

    The noise of a draw is keyed by (seed, image index, draw): it does not depend on the attack, so all attacks and
    the clean images meet the same draws, nor on `batch`, which bounds memory. A deterministic defense makes one
    draw, which serves selection too. A user-defined random module draws for the whole block at once.

    Args:
        defense: the defense.
        x: images, float32 [B, C, H, W].
        indices: dataset indices, int64 [B].
        draws: held-out draws.
        selection: further draws, for choosing the worst attack.
        seed: of the draws; the same for all cells of a board.
        batch: at most this many images times draws at once.
        memory: limit of the batch, halved when memory runs out; a user-defined random module then draws for fewer
            images at a time, so its draws change.
        known: judge on the draw of `known_noise` alone, without selection draws; a user-defined random module then
            gets one image at a time.

    Returns:
        selection + draws draws, selection first.
    """
    if known or not defense.stochastic:
        selection, draws = 0, 1
    streams = verdict_noise(seed, indices, x.device)
    names = [(_SELECTION, d) for d in range(selection)] + [(HELD_OUT, d) for d in range(draws)]
    keys = torch.cat([streams.child(*name).keys for name in names])
    size = len(x) if draws_for_batch(defense) else batch
    if known:
        keys = known_noise(seed, len(x), x.device).keys
        size = 1 if isinstance(defense, UserModule) else batch
    position = torch.arange(len(x), device=x.device).repeat(len(names))
    pieces = [slice(i, min(i + size, len(keys))) for i in range(0, len(keys), size)]
    memory = BatchLimit(defense) if memory is None else memory
    decisions, _ = memory.in_pieces(lambda s: defense.decide(x[position[s]], Noise(keys[s])), pieces)
    shape = (len(names), len(x))
    logits = torch.cat([d.logits.float() for d in decisions]).view(*shape, -1)
    rejected = torch.cat([d.rejected for d in decisions]).view(shape)
    held_out = torch.tensor([role == HELD_OUT for role, _ in names])
    scores = [d.scores.float() for d in decisions if d.scores is not None]
    return Draws(logits, rejected, held_out, torch.cat(scores).view(shape) if scores else None)
