"""Verdicts by a sequential rule, which draws until the majority of an image is decided."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bench.evaluation.batching import BatchLimit, draws_for_batch
from bench.evaluation.verdict import HELD_OUT, verdict_noise
from bench.stats.sequential import Decisions, Sequential
from defenses.core.defense import Defense
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
    """Judge images on the deployed defense, with further draws for undecided images alone.

    Image i meets in draw d the noise of `verdict` with the same seed, so the decisions are those that
    `rule` makes of its held-out draws. A user-defined random module draws for the whole block at once: its images stay
    in the batch until all are decided. A deterministic defense makes one draw.

    Args:
        defense: the defense.
        x: images, float32 [B, C, H, W].
        y: labels, int64 [B].
        indices: dataset indices, int64 [B].
        rule: fixed beforehand.
        seed: of the draws; that of the board.
        begun: predicted classes in the first draws of all images, int64 [B, draws], at most n_max draws; -1 is a
            refusal. None: no draws yet.
        batch: at most this many images times draws at once (memory); it changes nothing else.
        ahead: draws per round once the first images can be decided; more use a device better, and are wasted on
            images that the first of them decides.
        memory: see `verdict`.

    Returns:
        Decisions; `drawn` counts all draws that were made, also those of a round after the deciding draw. An image
        with a draw that is not finite stays undecided.
    """
    rule = rule if defense.stochastic else Sequential(1)
    together = draws_for_batch(defense)
    streams, memory = verdict_noise(seed, indices, x.device), BatchLimit(defense) if memory is None else memory
    label, begun = y.cpu().numpy(), np.zeros((len(x), 0), np.int64) if begun is None else begun
    n = begun.shape[1]
    pred = np.full((len(x), rule.n_max), -1, np.int64)
    pred[:, :n] = begun
    right, drawn = np.zeros(len(x), bool), np.full(len(x), n, np.int64)
    undecided, finite = np.ones(len(x), bool), np.ones(len(x), bool)
    while True:
        if n and len(at := np.flatnonzero(undecided)):
            votes = pred[at, :n]
            decisions = rule.decide(votes == label[at, None]) if rule.m else rule.decide_votes(votes, label[at])
            right[at], undecided[at] = decisions.right, decisions.undecided
        if n == rule.n_max or not undecided.any():
            break
        draws = range(n, min(n + ahead if n >= rule.first else rule.first, rule.n_max))
        at = np.flatnonzero(undecided | together)
        pred[at, draws.start : draws.stop], ok = _predictions(
            defense, x, at, streams, draws, len(at) if together else batch, memory
        )
        n = draws.stop
        drawn[at] = n
        finite[at] &= ok
        undecided &= finite
    return Decisions(right, undecided | ~finite, drawn)


def _predictions(
    defense: Defense, x: Tensor, at: I64, streams: Noise, draws: range, batch: int, memory: BatchLimit
) -> tuple[I64, Bools]:
    """Return predicted classes of the images `at`, int64 [images, draws] (-1: refused), and bool [images]: finite."""
    rows = torch.from_numpy(at).to(x.device)
    keys = torch.cat([streams.rows(rows).child(HELD_OUT, d).keys for d in draws])
    position = rows.repeat(len(draws))
    pieces = [slice(i, min(i + batch, len(keys))) for i in range(0, len(keys), batch)]
    with torch.no_grad():
        decisions, _ = memory.in_pieces(lambda s: defense.decide(x[position[s]], Noise(keys[s])), pieces)
        logits, rejected = torch.cat([d.logits for d in decisions]), torch.cat([d.rejected for d in decisions])
        pred = torch.where(rejected, -1, logits.argmax(-1)).view(len(draws), -1).T
        ok = torch.isfinite(logits).all(-1).view(len(draws), -1).all(0)
    return pred.cpu().numpy(), ok.cpu().numpy()
