"""Stability of an energy: statistics of long chains from data and from noise."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from defenses.data.dataset import load_dataset
from defenses.purifiers.langevin import EnergyGradient
from defenses.training.streams import stream
from defenses.utils.errors import UserError
from defenses.utils.files import make_folder, write_whole
from defenses.utils.json_values import Json
from defenses.zoo.checkpoints import load_network, read_sidecar
from defenses.zoo.weight_paths import find_weights, folder_beside


@torch.no_grad()
def stability(
    network: nn.Module,
    data: Tensor,
    *,
    steps: int,
    eps: float,
    temperature: float | None = None,
    classifier: nn.Module | None = None,
    train_images: Tensor | None = None,
    marks: Sequence[int] | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Json:
    """Return statistics of chains from data and from uniform noise at some of their steps.

    If both starts meet and the mean energy does not drift, the energy is metastable for that many steps; longer chains
    may differ. Run it at the eps and temperature of training, for at least 10 times the steps of purification (Nijkamp
    et al. 2020).

    Args:
        network: energy f, images in [-1, 1] -> [B].
        data: images [N, C, H, W] in [0, 1], one chain of each start for each; not the training images.
        steps: length of the chains.
        eps: step size.
        temperature: T; None: eps^2 / 2.
        classifier: network in [0, 1], for the share of every predicted class.
        train_images: images in [0, 1], for the distance to the nearest (L2, in [0, 1] pixels).
        marks: steps of the rows; None: 0 and eight geometric ones.
        seed: seed of the chains.
        progress: show a progress bar.

    Returns:
        eps, temperature, steps, chains, and `from_data`, `from_noise`: a row for every mark: step, U (mean
        f / T), r (mean gradient norm), moved (mean L2 distance from the start, [0, 1] pixels), outside (share of
        pixels beyond [-1, 1]), nearest_train, classes, mala (share of Metropolis-adjusted proposals that would be
        accepted; near 1 the step is small enough).

    Raises:
        UserError: steps or eps are out of range.
    """
    if steps < 1 or eps <= 0:
        raise UserError(f"stability: steps is {steps} and eps {eps}; steps must be at least 1 and eps positive")
    heat = eps**2 / 2 if temperature is None else temperature
    row_steps = sorted({0, *(max(1, round(steps * 10 ** (-i / 4))) for i in range(8))} if marks is None else {*marks})
    report: dict[str, object] = {"eps": eps, "temperature": heat, "steps": steps, "chains": len(data)}
    chains = _Chains(EnergyGradient(network), eps, heat, classifier, train_images)
    for i, name in enumerate(("from_data", "from_noise")):
        generator = stream(seed, "stability", i, data.device)
        noise = torch.rand(data.shape, generator=generator, device=data.device)
        x = begin = 2 * (data if i == 0 else noise) - 1
        rows = []
        for k in tqdm(range(steps + 1), desc=name.replace("_", " "), unit="step", disable=not progress):
            moved = chains.proposal(x, generator)
            if k in row_steps:
                rows.append({"step": k, **chains.statistics(x, moved, begin)})
            x = moved
        report[name] = rows
    return report


class _Chains:
    def __init__(
        self,
        gradient: EnergyGradient,
        eps: float,
        heat: float,
        classifier: nn.Module | None,
        train_images: Tensor | None,
    ):
        self.gradient, self.eps, self.heat = gradient, eps, heat
        self.drift = eps**2 / (2 * heat)
        self.classifier, self.train_images = classifier, train_images

    def proposal(self, x: Tensor, generator: torch.Generator) -> Tensor:
        z = torch.randn(x.shape, generator=generator, device=x.device)
        moved: Tensor = x - self.drift * self.gradient(x) + self.eps * z
        return moved

    def statistics(self, x: Tensor, moved: Tensor, begin: Tensor) -> Json:
        row: Json = {
            "U": float(self.gradient.energy(x).mean()) / self.heat,
            "r": float(self.gradient(x).flatten(1).norm(dim=1).mean()),
            "moved": float((x - begin).flatten(1).norm(dim=1).mean()) / 2,
            "outside": float((x.abs() > 1).float().mean()),
            "mala": self._acceptance(x, moved),
        }
        if self.train_images is not None:
            flat = self.train_images.flatten(1)
            nearest = torch.cat([torch.cdist(p, flat).amin(1) for p in torch.split(((x + 1) / 2).flatten(1), 500)])
            row["nearest_train"] = float(nearest.mean())
        row = {n: float(f"{v:.5g}") for n, v in row.items()}
        if self.classifier is not None:
            logits = self.classifier((x + 1) / 2)
            counts = logits.argmax(1).bincount(minlength=logits.shape[1])
            row["classes"] = [round(float(c) / len(x), 4) for c in counts]
        return row

    def _acceptance(self, x: Tensor, moved: Tensor) -> float:
        """Return the mean Metropolis acceptance of x -> moved (Roberts & Tweedie 1996)."""

        def log_density(at: Tensor, to: Tensor) -> Tensor:
            residual = to - at + self.drift * self.gradient(at)
            squares: Tensor = residual.square().flatten(1).sum(1)
            return -squares / (2 * self.eps**2)

        energies = (self.gradient.energy(x) - self.gradient.energy(moved)) / self.heat
        ratio = energies + log_density(moved, x) - log_density(x, moved)
        return float(ratio.clamp_max(0).exp().mean())


def write_stability(dataset: str, *, root: Path | str | None = None, data_root: Path | None = None) -> Path:
    """Write the stability of a data set's trained energy beside its weights, and return the file.

    Chains start from at most 1,000 validation images and run ten times the steps of purification, at the eps and
    temperature of training.

    Args:
        dataset: name of the data set.
        root: folder of weights to look in first.
        data_root: folder of data sets.

    Returns:
        <weights>/<dataset>/ebm-mcmc.stability.json.

    Raises:
        UserError: no such weights, or those of a repository of the hub.
    """
    path = find_weights("ebm-mcmc", dataset, root)
    side = read_sidecar(path)
    make_folder(folder_beside(path, root, "the report", "--out"))
    eps, purification = side["recipe"]["objective"]["eps"], side["recipe"]["deploy"]["steps"]
    report = stability(
        load_network("ebm-mcmc", dataset, roles=["energy of images in [-1, 1]"], root=root),
        load_dataset(dataset, "validation", root=data_root).x[:1000],
        steps=10 * purification,
        eps=eps,
        classifier=load_network("undefended", dataset, root=root),
        train_images=load_dataset(dataset, "train", root=data_root).x,
        progress=True,
    )
    report = {"weights_sha256": side["sha256"], "data": f"{dataset} validation", **report}
    target = path.with_suffix(".stability.json")
    write_whole(target, json.dumps(report, indent=1) + "\n", "the weights are kept")
    return target
