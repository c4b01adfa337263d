"""Losses that attacks raise, over copies of images: every image has as many rows of logits as copies."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NEEDS = {"ce": 2, "margin": 2, "dlr": 3, "dlr-targeted": 4}  # classes


@dataclass(frozen=True)
class Aim:
    """Aims of n images: away from the labels y, or towards the classes t.

    Args:
        y: labels, int64 [n].
        t: classes to reach, int64 [n]; unused where `towards` is false.
        towards: bool [n].
    """

    y: Tensor
    t: Tensor
    towards: Tensor

    def rows(self, item: Tensor) -> Aim:
        """Return the aims of rows that belong to the images `item`, int64 [R]."""
        return Aim(self.y[item], self.t[item], self.towards[item])


def row_losses(kind: str, z: Tensor, aim: Aim) -> Tensor:
    """Return a loss of every row, larger where the attack is nearer to its aim.

    Args:
        kind: "ce" (log-odds, see `image_losses`), "margin" (Carlini & Wagner 2017) or "dlr" (Croce & Hein 2020,
            equations 5 and 6).
        z: logits [R, K].
        aim: of the rows.

    Returns:
        [R].
    """
    if kind == "ce":
        odds = _log_odds(z, torch.where(aim.towards, aim.t, aim.y))
        return torch.where(aim.towards, odds[0] - odds[1], odds[1] - odds[0])
    if kind == "margin":
        return torch.where(aim.towards, -_over_others(z, aim.t), _over_others(z, aim.y))
    top = z.sort(1, descending=True).values
    away = _over_others(z, aim.y) / (top[:, 0] - top[:, 2] + 1e-12)
    if z.shape[1] < NEEDS["dlr-targeted"]:
        return away
    towards = (_at(z, aim.t) - _at(z, aim.y)) / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + 1e-12)
    return torch.where(aim.towards, towards, away)


def image_losses(kind: str, z: Tensor, aim: Aim, item: Tensor, copies: Tensor) -> Tensor:
    """Return the loss of every image over its copies.

    "ce" is the log-odds of the mean probability: its gradient has the direction of that of the mean's cross-entropy,
    and does not vanish where the probability rounds to 1. The mean of the copies' cross-entropies would go on raising
    the loss of copies that are wrong already. The other losses are means over copies.

    Args:
        kind: as `row_losses`, or "ce-logits": log-odds of the mean logits, for a defense that averages these.
        z: logits of all copies [R, K].
        aim: of the n images.
        item: the image of every row, int64 [R].
        copies: rows of every image, int64 [n].

    Returns:
        [n].
    """
    if kind == "ce-logits":
        return row_losses("ce", image_means(z, item, copies), aim)
    if kind != "ce":
        return _sum(row_losses(kind, z, aim.rows(item)), item, copies) / copies
    rows = aim.rows(item)
    yes, no = (_log_sum(v, item, len(copies)) for v in _log_odds(z, torch.where(rows.towards, rows.t, rows.y)))
    return torch.where(aim.towards, yes - no, no - yes)


def suspicion(excess: Tensor, item: Tensor, copies: Tensor) -> Tensor:
    """Return the mean over copies of the scores' excess over the detector's threshold, [n]; a score below counts 0.

    Args:
        excess: of the rows, [R].
        item: the image of every row, int64 [R].
        copies: rows of every image, int64 [n].
    """
    return _sum(excess.clamp_min(0), item, copies) / copies


def refused(excess: Tensor, item: Tensor, copies: Tensor) -> Tensor:
    """Return the share of copies that the detector suspects, [n]; see `suspicion`."""
    return _sum((excess > 0).to(excess.dtype), item, copies) / copies


def unbroken(z: Tensor, aim: Aim, item: Tensor, copies: Tensor) -> Tensor:
    """Return the share of copies that have not reached the aim, [n]."""
    return _sum(stands(z, aim.rows(item)).float(), item, copies) / copies


def stands(z: Tensor, aim: Aim) -> Tensor:
    """Return bool [R]: rows (logits z [R, K], with their aims) that have not reached the aim."""
    predicted = z.argmax(1)
    return torch.where(aim.towards, predicted != aim.t, predicted == aim.y)


def unbroken_combined(scores: Tensor, aim: Aim, item: Tensor, copies: Tensor, runs: int) -> Tensor:
    """Return the share of predictions, of `runs` copies each, that have not reached the aim, [n].

    The score of a prediction is taken as normal, with the standard deviation of the copies over sqrt(runs) and, for
    caution, a mean that is one standard error worse for the attack than that of the copies.

    Args:
        scores: averaged by a prediction, probabilities or logits [R, K].
        aim: of the n images.
        item: the image of every row, int64 [R].
        copies: rows of every image, at least 2, int64 [n].
        runs: copies that one prediction combines.
    """
    means = image_means(scores, item, copies)
    wanted = torch.where(aim.towards, aim.t, means.scatter(1, aim.y[:, None], -torch.inf).argmax(1))
    rival = torch.where(aim.towards, means.scatter(1, aim.t[:, None], -torch.inf).argmax(1), aim.y)
    lead = _at(scores, rival[item]) - _at(scores, wanted[item])
    mean = _sum(lead, item, copies) / copies
    spread = (_sum((lead - mean[item]).square(), item, copies) / (copies - 1)).sqrt().clamp_min(1e-12)
    share: Tensor = torch.special.ndtr((mean / spread + copies**-0.5) * runs**0.5)
    return share


def image_means(values: Tensor, item: Tensor, copies: Tensor) -> Tensor:
    """Return the means of rows [R, K] over the copies of every image, [n, K]."""
    sums = torch.zeros(len(copies), values.shape[1], dtype=values.dtype, device=values.device)
    return sums.index_add(0, item, values) / copies[:, None]


def _sum(values: Tensor, item: Tensor, copies: Tensor) -> Tensor:
    return torch.zeros(len(copies), dtype=values.dtype, device=values.device).index_add(0, item, values)


def _log_odds(z: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logs of class k's and of all other classes' probability, [R] each; exact also where one is near 1."""
    total = z.logsumexp(1)
    return _at(z, k) - total, z.scatter(1, k[:, None], -torch.inf).logsumexp(1) - total


def _log_sum(logs: Tensor, item: Tensor, n: int) -> Tensor:
    """Return the logarithm of the sum of exp(logs) over the copies of every image, [n]."""
    top = torch.full((n,), -torch.inf, dtype=logs.dtype, device=logs.device)
    top = top.scatter_reduce(0, item, logs.detach(), "amax")
    return top + torch.zeros_like(top).index_add(0, item, (logs - top[item]).exp()).log()


def _at(z: Tensor, k: Tensor) -> Tensor:
    return z.gather(1, k[:, None]).squeeze(1)


def _over_others(z: Tensor, k: Tensor) -> Tensor:
    """Return the largest logit of another class minus that of class k, [R]."""
    return z.scatter(1, k[:, None], -torch.inf).amax(1) - _at(z, k)
