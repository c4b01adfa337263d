"""Verdicts that stop drawing as soon as a sequential test decides."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bench.evaluation.batching import BatchLimit
from bench.evaluation.verdict import HELD_OUT, verdict_noise
from bench.stats.sequential import Decisions, Sequential
from defenses.core.defense import Defense, Foreign
from defenses.core.noise import Noise
from defenses.utils.arrays import I64, Bools


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
    memory: BatchLimit | None = None,
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
    streams, memory = verdict_noise(seed, indices, x.device), BatchLimit(defense) if memory is None else memory
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
    defense: Defense, x: Tensor, at: I64, streams: Noise, draws: range, batch: int, memory: BatchLimit
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
