"""Checks of the network of a published file against its paper, by measurements that need no attack."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from bench.analysis.claim_files import interval_of, read_claims
from bench.audit.findings import Finding, status_of
from bench.evaluation.linear_denoiser import MOST_DIMENSIONS, LinearDenoiser
from defenses.core.noise import Draw, Noise
from defenses.core.purify import purify
from defenses.data.dataset import load_dataset
from defenses.networks.registry import build_network, deployed, role_of
from defenses.networks.sde import time
from defenses.purifiers.langevin import Langevin
from defenses.utils.errors import UserError

if TYPE_CHECKING:
    from defenses.importers.checkpoint import Checkpoint

SIGMAS = (0.1, 0.17, 0.25)  # noise of purification in pixels of [0, 1]: DiffPure's at t = .1 is .17, ADP's .25
_LANGEVIN = "energy of images in [-1, 1]"
_CHAINS = 16  # images of the long chains
_BATCH = 100
_CLEAN_N = 10_000  # test images of a published accuracy that tells no number


def check_weights(
    checkpoint: Checkpoint,
    network: nn.Module,
    dataset: str,
    *,
    images: int = 1000,
    seed: int = 0,
    data_root: str | Path | None = None,
    claimed: Mapping[float, int] | None = None,
) -> list[Finding]:
    """Return what the network does on the first test images, each finding with what a right file must reach.

    Classifiers: accuracy against the published one. Networks of scores and noise: denoising score matching loss per
    dimension at the `SIGMAS`, below that of the zero score (1), of fresh weights and of the best linear denoiser.
    Energies: lower on images than on noise, and long chains from images stay where images are.

    Args:
        checkpoint: see `importers.registry.read_checkpoint`.
        network: the network with its weights.
        dataset: name of the data set of its training.
        images: number of test images, at least 2; all if there are fewer.
        seed: of the noise.
        data_root: folder of data sets.
        claimed: see `claimed_accuracies`; None or empty: the checkpoint's own.

    Raises:
        UserError: no data set, or a network of a role without a check.
    """
    role = role_of(checkpoint.kind)
    data = load_dataset(dataset, root=data_root)
    at = range(min(images, len(data)))
    x, network = data.images(at), deployed(network)
    if role == "classifier":
        own = {} if checkpoint.clean is None else {checkpoint.clean: _CLEAN_N}
        return [_accuracy(network, x, data.y[: len(at)], data.num_classes, claimed or own)]
    fresh = deployed(build_network(checkpoint.kind, **checkpoint.args))
    noise = Noise.of(seed, at)
    if role in ("score network", "noise predictor"):
        train = load_dataset(dataset, "train", root=data_root)
        return list(_losses(network, fresh, x, noise, LinearDenoiser.of(train)))
    if role == _LANGEVIN:
        return [*_gaps(network, fresh, x, noise), _long_chains(network, checkpoint, x[:_CHAINS], noise)]
    raise UserError(f"there is no check of a network of kind {checkpoint.kind} ({role})")


def claimed_accuracies(source: Path, dataset: str) -> dict[float, int]:
    """Return the clean accuracies that the claims of purebench have for a file, each with its number of images.

    Claims name a file by its SHA-256. One that none names so goes by RobustBench's id, its name without the ending,
    which models of several norms share: each has a figure of its own.
    """
    sha = f"sha256:{hashlib.sha256(source.read_bytes()).hexdigest()}" if source.is_file() else ""
    told = [claim for claim in read_claims() if claim.dataset == dataset and claim.clean is not None]
    of_id = [f"robustbench:{dataset}", source.stem]
    chosen = [c for c in told if sha in c.weights] or [
        c for c in told if any(w.split("/")[0::2] == of_id for w in c.weights)
    ]
    figures: dict[float, int] = {}
    for claim in chosen:
        if claim.clean is not None:
            figures[claim.clean] = max(claim.n or _CLEAN_N, figures.get(claim.clean, 0))
    return figures


def _batched(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([function(*batch) for batch in zip(*(t.split(_BATCH) for t in tensors), strict=True)])


def _interval(values: Tensor) -> tuple[float, float, float]:
    """Return the mean of values per image, and its 95% interval by the normal law."""
    mean = float(values.mean())
    half = 1.96 * float(values.std()) / math.sqrt(len(values))
    return mean, mean - half, mean + half


def _accuracy(network: nn.Module, x: Tensor, y: Tensor, classes: int, claimed: Mapping[float, int]) -> Finding:
    """Return whether the interval of the accuracy meets that of a published one; each number of images is a value."""
    right = int((_batched(network, x).argmax(1) == y).sum())
    low, high = interval_of(share := right / len(x), len(x))
    measured = f"{share:.2%} of {len(x)} images, [{low:.2%}, {high:.2%}]"
    nearest = min(claimed, key=lambda figure: abs(figure - share), default=None)
    numbers: dict[str, float | None] = {"accuracy": share, "low": low, "high": high, "published": nearest}
    if nearest is None:
        evidence = f"{measured}; no published figure is known, and chance is {1 / classes:.2%}"
        return Finding("clean accuracy", status_of(low > 1 / classes), evidence, numbers)
    ends = [interval_of(figure, n) for figure, n in claimed.items()]
    ok = any(from_below <= high and low <= from_above for from_below, from_above in ends)
    evidence = f"{measured}; published {' or '.join(f'{figure:.2%}' for figure in claimed)}"
    return Finding("clean accuracy", status_of(ok), evidence, numbers)


def predicted_noise(network: nn.Module, x: Tensor, sigma: float, z: Tensor) -> Tensor:
    """Return the noise that a network of scores or noise sees in x + sigma z, of the shape of x.

    Args:
        network: score network f = sigma score, or noise predictor with its SDE as attribute `sde`.
        x: images [B, C, H, W] in [0, 1].
        sigma: standard deviation, in pixels of [0, 1].
        z: standard normal values, of the shape of x.
    """
    sde = getattr(network, "sde", None)
    if sde is None:
        return -network(x + sigma * z)  # type: ignore[no-any-return]
    t = time(sde.time_of(sigma))
    noisy = (sde.mean(t) * sde.encode(x) + sde.std(t) * z).float()
    return network(noisy, t.float().expand(len(x)))  # type: ignore[no-any-return]


def _losses(
    network: nn.Module, fresh: nn.Module, x: Tensor, noise: Noise, linear: LinearDenoiser | None
) -> Iterator[Finding]:
    """Yield a finding for each noise level: E (predicted z - z)^2, the mean over pixels."""
    left_out = "" if linear else f" (above {MOST_DIMENSIONS} dimensions the best linear denoiser is left out)"
    for number, sigma in enumerate(SIGMAS):
        z = noise.child(number).draw(Draw(tuple(x.shape[1:])))

        def error(predicted: Tensor, z: Tensor = z) -> Tensor:
            return (predicted - z).square().flatten(1).mean(1)

        loss, untrained = (
            error(_batched(lambda a, b, net=net, sigma=sigma: predicted_noise(net, a, sigma, b), x, z))
            for net in (network, fresh)
        )
        others = {
            "zero score": error(torch.zeros_like(z)),
            "fresh weights": untrained,
        }
        if linear:
            others["best linear denoiser"] = error(linear.predicted_noise(x + sigma * z, sigma))
        mean, low, high = _interval(loss)
        told = ", ".join(f"{name} {float(other.mean()):.4f}" for name, other in others.items())
        evidence = f"{mean:.4f} per dimension, [{low:.4f}, {high:.4f}]; must be below: {told}{left_out}"
        numbers = {"loss": mean, **{name: float(other.mean()) for name, other in others.items()}}
        ok = all(_interval(other - loss)[1] > 0 for other in others.values())
        yield Finding(f"loss at sigma {sigma:g}", status_of(ok), evidence, numbers)


def _gaps(energy: nn.Module, fresh: nn.Module, x: Tensor, noise: Noise) -> Iterator[Finding]:
    """Yield a finding for each kind of noise: its energy f above that of images, and above what fresh weights give."""
    uniform = noise.child(0).draw(Draw(tuple(x.shape[1:]), "uniform"))
    order = noise.child(1).draw(Draw((x[0, 0].numel(),), "uniform")).argsort(1)
    shuffled = x.flatten(2).gather(2, order[:, None].expand(-1, x.shape[1], -1)).view_as(x)
    for name, other in (("uniform noise", uniform), ("images of shuffled pixels", shuffled)):
        trained, untrained = (_batched(net, 2 * other - 1) - _batched(net, 2 * x - 1) for net in (energy, fresh))
        mean, low, high = _interval(trained)
        chance = abs(float(untrained.mean()))
        evidence = f"f is {mean:.4g} above that of images, [{low:.4g}, {high:.4g}]; fresh weights: {chance:.2g} apart"
        numbers = {"gap": mean, "low": low, "high": high, "fresh weights": chance}
        yield Finding(f"energy of {name}", status_of(low > chance), evidence, numbers)


def _long_chains(energy: nn.Module, checkpoint: Checkpoint, x: Tensor, noise: Noise) -> Finding:
    """Return whether f after the chains of purification is nearer to that of images than uniform noise is."""
    deploy = checkpoint.recipe.get("deploy")
    settings = {k: v for k, v in (deploy if isinstance(deploy, dict) else {}).items() if k != "runs"}
    purifier = Langevin(energy, **settings)
    with torch.no_grad():
        ends = purify(purifier, x, noise.rows(slice(len(x))).child(2))
        uniform = noise.rows(slice(len(x))).child(0).draw(Draw(tuple(x.shape[1:]), "uniform"))
        start, end, far = (float(energy(2 * images - 1).mean()) for images in (x, ends, uniform))
    drift, gap = abs(end - start), abs(far - start)
    numbers = {"images": start, "chains": end, "uniform noise": far}
    evidence = f"f moves by {drift:.4g} in {purifier.steps} steps; to uniform noise it is {gap:.4g}"
    return Finding("energy after long chains", status_of(math.isfinite(end) and drift < gap), evidence, numbers)
