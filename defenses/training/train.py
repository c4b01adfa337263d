"""Training of the defenses' networks by published recipes: `train` is the entry point."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from defenses.utils.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from defenses.training.loop import Result
    from defenses.training.objective import Material, Objective
    from defenses.training.recipe import Recipe


def train(
    name: str,
    dataset: str,
    *,
    out: Path,
    weights: str | None = None,
    data_root: Path | None = None,
    seed: int = 0,
    overrides: Mapping[str, Any] | None = None,
    checkpoint_every: int = 500,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> Path:
    """Train a network by its recipe, or go on with a training that was interrupted.

    Writes <out>/<weights>.safetensors, <weights>.json beside it, and <weights>.checkpoint.pt until it is finished; with
    a seed other than 0 <weights>.seed1.safetensors and so on.

    Args:
        name: a defense that has a recipe.
        dataset: name of a data set that has train and validation images.
        out: folder to write into, as `weights_places.cache_dir() / dataset`.
        weights: what the weights are called, so that those of a changed recipe stand beside others; None is `name`.
        data_root: where data sets lie; None is the default place.
        seed: seed of everything random.
        overrides: see `recipe.load_recipe`.
        checkpoint_every: steps between checkpoints.
        device: where to train; None is a GPU if there is one, else the CPU.
        progress: show a progress bar.

    Returns:
        The weights' file.

    Raises:
        UserError: unknown name, data set or recipe key; a name of weights that cannot be (`weights_places.check_name`);
            a value of the recipe that cannot stand there; a seed below 0; a folder that cannot be written to, before
            any work; a training that diverged; a checkpoint that cannot be used.
    """
    import torch

    from defenses.training.recipe import load_recipe
    from defenses.utils.files import make_folder, no_empty_folder
    from defenses.zoo.checkpoints import save_network
    from defenses.zoo.weight_paths import check_name, seeded

    if checkpoint_every < 1:
        raise UserError(f"checkpoint_every is {checkpoint_every}; it must be at least 1")
    recipe = load_recipe(name, dataset, overrides)
    check_name(weights := name if weights is None else weights, name)
    path = Path(out) / f"{seeded(weights, seed)}.safetensors"
    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    checkpoint = path.with_suffix(".checkpoint.pt")
    with no_empty_folder(path.parent):
        make_folder(path.parent)
        material, classes = _material(dataset, data_root, path.parent, seed)
        begun = time.perf_counter()
        network, args, result = fit_recipe(
            recipe,
            material.to(target),
            classes,
            checkpoint,
            seed=seed,
            checkpoint_every=checkpoint_every,
            progress=progress,
        )
    made = {
        **vars(recipe),
        "phases": [p.described() for p in recipe.phases],
        "seed": seed,
        "steps": int(result.history[-1]["step"]),
        "shipped_step": result.step,
        "torch": torch.__version__,
        "device": str(target),
        "seconds": round(time.perf_counter() - begun, 1),
        "cpu_seconds": round(result.cpu_seconds, 1),
    }
    metrics = {"validation": _shipped_row(result.history, result.step)}
    save_network(path, network, recipe.kind, args, made, metrics={**metrics, "history": _thin(result.history)})
    checkpoint.unlink(missing_ok=True)
    return path


def fit_recipe(
    recipe: Recipe,
    material: Material,
    num_classes: int,
    checkpoint: Path,
    *,
    seed: int,
    checkpoint_every: int = 500,
    progress: bool = False,
) -> tuple[nn.Module, dict[str, Any], Result]:
    """Train by a recipe on any material, on the device where that lies.

    Args:
        recipe: how.
        material: images and labels, which need not be those of the recipe's data set.
        num_classes: K.
        checkpoint: see `loop.fit`; whoever calls removes it.
        seed: of everything random.
        checkpoint_every: steps between checkpoints.
        progress: show a progress bar.

    Returns:
        The network with the weights to ship, the arguments that it is built with, and the training's result.

    Raises:
        UserError: as `train`.
    """
    from defenses.networks.registry import build_network, data_args
    from defenses.training.loop import Plan, fit
    from defenses.training.recipe import objective_of
    from defenses.training.streams import Order, stream_seed

    _, c, h, w = material.x.shape
    decided = data_args(recipe.kind, (c, h, w), num_classes)
    for key, value in decided.items():
        if (given := recipe.network_args.get(key, value)) != value:
            raise UserError(f"recipe: network.args.{key} is {given}, and the data have {value}; leave it out")
    args = {**decided, **recipe.network_args}
    network = build_network(recipe.kind, seed=stream_seed(seed, "weights"), **args).to(material.x.device)
    objective: Objective = objective_of(recipe.method)(network, material, seed, recipe.objective)
    phases, validate_every = recipe.in_steps(Order(len(material.x), recipe.batch, seed).per_epoch)
    plan = Plan(recipe.batch, phases, validate_every, checkpoint_every, seed, recipe.fingerprint(seed))
    result = fit(objective, plan, checkpoint, progress=progress)
    network.load_state_dict(result.weights)
    return network, args, result


def _shipped_row(history: list[dict[str, float]], step: int) -> dict[str, float]:
    return next(row for row in history if row["step"] == step)


def _thin(history: list[dict[str, float]], keep: int = 20) -> list[dict[str, float]]:
    """At most about `keep` rows, the last among them, with four significant digits."""
    rows = history[:: -max(1, len(history) // keep)][::-1]
    return [{n: float(f"{v:.6g}") for n, v in row.items()} for row in rows]


def _material(dataset: str, root: Path | None, out: Path, seed: int) -> tuple[Material, int]:
    from defenses.data.dataset import load_dataset
    from defenses.training.objective import Material
    from defenses.zoo.checkpoints import load_classifier

    def trained(name: str) -> nn.Module:
        return load_classifier(name, dataset, root=out.parent, training_seed=seed or None, data_root=root)

    data, held = (load_dataset(dataset, split, root=root) for split in ("train", "validation"))
    return Material(data.x, data.y, held.x, held.y, trained), data.num_classes
