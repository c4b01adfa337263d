"""The verdict: what the deployed defense says of frozen images, under draws that no attack has seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bench.evaluation.batching import Rows
from bench.stats.sequential import Decisions, Sequential
from defenses.core.defense import Defense, Foreign
from defenses.core.noise import Noise
from defenses.utils.arrays import I64, Bools

_VERDICT, _SELECTION, HELD_OUT, _KNOWN = 0x56455244, 0, 1, 2  # names of noise streams


@dataclass(frozen=True)
class Draws:
    """Draws of a defense on B images.

    Args:
        logits: float32 [D, B, K].
        rejected: bool [D, B], images that the defense refused to classify.
        held_out: bool [D]; the others are for selection.
        scores: float32 [D, B], suspicion; None: the defense has no detector.
    """

    logits: Tensor
    rejected: Tensor
    held_out: Tensor
    scores: Tensor | None = None

    @property
    def predictions(self) -> Tensor:
        """int64 [D, B]."""
        return self.logits.argmax(-1)

    @property
    def finite(self) -> Tensor:
        """Bool [B]: all logits and scores of all draws are finite; without that an image has no verdict."""
        finite = torch.isfinite(self.logits).all(-1).all(0)
        return finite if self.scores is None else finite & torch.isfinite(self.scores).all(0)

    def margins(self, y: Tensor) -> Tensor:
        """float32 [D, B]: logit of the label minus the largest other one (labels int64 [B])."""
        index = y.expand(len(self.logits), -1).unsqueeze(-1)
        own = self.logits.gather(-1, index).squeeze(-1)
        return own - self.logits.scatter(-1, index, -torch.inf).amax(-1)


def verdict_noise(seed: int, indices: Tensor, device: torch.device) -> Noise:
    """A stream per image (dataset indices int64 [B]), under which held-out draw d is child (HELD_OUT, d)."""
    return Noise.of(seed, indices.to(device), device).child(_VERDICT)


def known_noise(seed: int, rows: int, device: torch.device) -> Noise:
    """Streams for an attacker who knows the seed: the same for every row, under which the defense is deterministic.

    A defense that is deployed with a fixed seed draws the same noise for every image. Noise of each image's own would
    have to be found by what a library asks about: sub-batches without indices, interpolated images, and starting
    points of other classes outside the ball. One draw for all images is right for every library.

    Args:
        seed: of the board.
        rows: how many.
        device: where.
    """
    one = Noise.of(seed, [0], device).child(_VERDICT, _KNOWN)
    return one.rows(torch.zeros(rows, dtype=torch.int64, device=device))


@torch.no_grad()
def verdict(
    defense: Defense,
    x: Tensor,
    indices: Tensor,
    *,
    draws: int,
    selection: int,
    seed: int,
    batch: int = 2048,
    memory: Rows | None = None,
    known: bool = False,
) -> Draws:
    """Judge images on the deployed defense.

    The noise of a draw is keyed by (seed, image index, draw): it does not depend on the attack, so all attacks and
    the clean images meet the same draws, nor on `batch`, which bounds memory. A deterministic defense is asked
    once, and that draw serves selection too. A foreign random module draws for the whole block at once.

    Args:
        defense: the defense.
        x: images, float32 [B, C, H, W].
        indices: dataset indices, int64 [B].
        draws: held-out draws.
        selection: further draws, for choosing the worst attack.
        seed: of the draws; the same for all cells of a board.
        batch: at most this many images times draws at once.
        memory: is told when memory runs out, and how many go at once from then on; a foreign random module then
            draws for fewer images at a time, so its draws change.
        known: judge on the one draw of `known_noise`, without selection draws; a foreign random module is then asked
            about one image at a time.

    Returns:
        selection + draws draws, selection first.
    """
    if known or not defense.stochastic:
        selection, draws = 0, 1
    streams = verdict_noise(seed, indices, x.device)
    names = [(_SELECTION, d) for d in range(selection)] + [(HELD_OUT, d) for d in range(draws)]
    keys = torch.cat([streams.child(*name).keys for name in names])
    size = len(x) if isinstance(defense, Foreign) and defense.stochastic else batch
    if known:
        keys = known_noise(seed, len(x), x.device).keys
        size = 1 if isinstance(defense, Foreign) else batch
    position = torch.arange(len(x), device=x.device).repeat(len(names))
    pieces = [slice(i, min(i + size, len(keys))) for i in range(0, len(keys), size)]
    memory = Rows(defense) if memory is None else memory
    said, _ = memory.in_pieces(lambda s: defense.decide(x[position[s]], Noise(keys[s])), pieces)
    shape = (len(names), len(x))
    all_logits = torch.cat([p.logits.float() for p in said]).view(*shape, -1)
    held_out = torch.tensor([role == HELD_OUT for role, _ in names])
    scored = [p.scores.float() for p in said if p.scores is not None]
    scores = torch.cat(scored).view(shape) if scored else None
    return Draws(all_logits, torch.cat([p.rejected for p in said]).view(shape), held_out, scores)


def sequential_verdict(
    defense: Defense,
    x: Tensor,
    y: Tensor,
    indices: Tensor,
    rule: Sequential,
    seed: int,
    *,
    begun: I64 | None = None,
    batch: int = 2048,
    ahead: int = 1,
    memory: Rows | None = None,
) -> Decisions:
    """Judge images on the deployed defense, drawing for those alone that are not decided.

    Image i meets in draw d the noise of `verdict` with the same seed, so the decisions are those that
    `rule` makes of its held-out draws. A foreign random module draws for the whole block at once: its images stay in
    the batch until all are decided. A deterministic defense is asked once.

    Args:
        defense: the defense.
        x: images, float32 [B, C, H, W].
        y: labels, int64 [B].
        indices: dataset indices, int64 [B].
        rule: fixed beforehand.
        seed: of the draws; that of the board.
        begun: predicted classes in the first draws of all images, which are there already, int64 [B, draws], at most
            n_max; a refusal is -1.
        batch: at most this many images times draws at once (memory); it changes nothing else.
        ahead: draws per round once the first images can be decided; more fill a device better and are wasted on
            images that the first of them decides.
        memory: see `verdict`.

    Returns:
        Decisions; `drawn` counts all draws that were made, those of a round after the deciding one too. An image of
        which a draw is not finite stays undecided.
    """
    rule = rule if defense.stochastic else Sequential(1)
    together = isinstance(defense, Foreign) and defense.stochastic
    streams, memory = verdict_noise(seed, indices, x.device), Rows(defense) if memory is None else memory
    label, made = y.cpu().numpy(), np.zeros((len(x), 0), np.int64) if begun is None else begun
    n = made.shape[1]
    pred = np.full((len(x), rule.n_max), -1, np.int64)
    pred[:, :n] = made
    right, drawn = np.zeros(len(x), bool), np.full(len(x), n, np.int64)
    going, finite = np.ones(len(x), bool), np.ones(len(x), bool)
    while True:
        if n and len(at := np.flatnonzero(going)):
            seen = pred[at, :n]
            said = rule.decide(seen == label[at, None]) if rule.m else rule.decide_votes(seen, label[at])
            right[at], going[at] = said.right, said.undecided
        if n == rule.n_max or not going.any():
            break
        draws = range(n, min(n + ahead if n >= rule.first else rule.first, rule.n_max))
        at = np.flatnonzero(going | together)
        pred[at, draws.start : draws.stop], ok = _drawn(
            defense, x, at, streams, draws, len(at) if together else batch, memory
        )
        n = draws.stop
        drawn[at] = n
        finite[at] &= ok
        going &= finite
    return Decisions(right, going | ~finite, drawn)


def _drawn(
    defense: Defense, x: Tensor, at: I64, streams: Noise, draws: range, batch: int, memory: Rows
) -> tuple[I64, Bools]:
    """Predicted classes of some images in some draws, [images, draws], a refusal is -1; and which have all of them."""
    rows = torch.from_numpy(at).to(x.device)
    keys = torch.cat([streams.rows(rows).child(HELD_OUT, d).keys for d in draws])
    position = rows.repeat(len(draws))
    pieces = [slice(i, min(i + batch, len(keys))) for i in range(0, len(keys), batch)]
    with torch.no_grad():
        said, _ = memory.in_pieces(lambda s: defense.decide(x[position[s]], Noise(keys[s])), pieces)
        logits, rejected = torch.cat([p.logits for p in said]), torch.cat([p.rejected for p in said])
        pred = torch.where(rejected, -1, logits.argmax(-1)).view(len(draws), -1).T
        ok = torch.isfinite(logits).all(-1).view(len(draws), -1).all(0)
    return pred.cpu().numpy(), ok.cpu().numpy()
