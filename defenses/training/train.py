"""Training of the defenses' networks by published recipes."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from defenses.core.defense import Purified
from defenses.core.purifier import Purifier
from defenses.data.dataset import load_dataset
from defenses.networks.registry import build_network, data_args
from defenses.training.checkpoint import resumed_plan
from defenses.training.loop import Result, fit
from defenses.training.objective import Material, Objective
from defenses.training.plan import Plan
from defenses.training.recipe import Recipe, load_recipe, objective_of
from defenses.training.streams import Order, stream_seed
from defenses.training.time_limit import plan_that_fits
from defenses.utils.devices import device_named
from defenses.utils.errors import UserError
from defenses.utils.files import make_folder, no_empty_folder
from defenses.utils.json_values import Json, JsonView
from defenses.utils.names import is_plugin
from defenses.zoo.checkpoints import load_classifier, save_network, weights_hash
from defenses.zoo.registry import load_model
from defenses.zoo.weight_paths import check_name, seeded


def train(
    name: str,
    dataset: str,
    *,
    out: Path,
    weights: str | None = None,
    data_root: Path | None = None,
    seed: int = 0,
    overrides: JsonView | None = None,
    checkpoint_every: int = 500,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> Path:
    """Train a network by its recipe, or resume an interrupted training, and return the file of its weights.

    Writes <out>/<weights>.safetensors, <weights>.json beside it, and <weights>.checkpoint.pt until the end; with seed 1
    <weights>.seed1.safetensors and so on.

    Args:
        name: a defense with a recipe.
        dataset: name of a data set with train and validation images.
        out: folder to write into, as `defenses.utils.paths.cache_dir() / dataset`.
        weights: name of the weights, for a changed recipe beside the published one; None: `name`.
        data_root: folder of data sets; None: see `defenses.utils.paths.data_root`.
        seed: of all randomness.
        overrides: see `recipe.load_recipe`.
        checkpoint_every: steps between checkpoints.
        device: of the training; None: a GPU if there is one, else the CPU.
        progress: show a progress bar.

    Returns:
        The weights' file.

    Raises:
        UserError: unknown name, data set or recipe key; an invalid name of weights (`weight_paths.check_name`) or value
            of the recipe; a negative seed; a folder that cannot be written to, before any work; a training that
            diverged; a checkpoint that cannot be used.
    """
    if checkpoint_every < 1:
        raise UserError(f"checkpoint_every is {checkpoint_every}; it must be at least 1")
    recipe = load_recipe(name, dataset, overrides)
    check_name(weights := name if weights is None else weights, name)
    path = Path(out) / f"{seeded(weights, seed)}.safetensors"
    target = device_named(str(device or ("cuda" if torch.cuda.is_available() else "cpu")))
    checkpoint = path.with_suffix(".checkpoint.pt")
    with no_empty_folder(path.parent):
        make_folder(path.parent)
        material, classes = _load_material(dataset, data_root, path.parent, seed)
        begun = time.perf_counter()
        options: Json = {"seed": seed, "checkpoint_every": checkpoint_every, "progress": progress}
        network, args, result = fit_recipe(recipe, material.to(target), classes, checkpoint, **options)
    seconds = {"seconds": round(time.perf_counter() - begun, 1), "cpu_seconds": round(result.cpu_seconds, 1)}
    description = {**_description(recipe, result), "seed": seed, "device": str(target), **seconds}
    if recipe.start:
        sha256 = weights_hash(recipe.start, dataset, path.parent.parent, training_seed=seed or None)
        description["start_sha256"] = sha256
    save_network(path, network, recipe.kind, args, description, metrics=_metrics(result), half=recipe.half)
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
) -> tuple[nn.Module, Json, Result]:
    """Train by a recipe on any material, on its device.

    Args:
        recipe: of the training.
        material: images and labels, also of another data set than the recipe's.
        num_classes: K.
        checkpoint: see `loop.fit`; the caller removes it.
        seed: of all randomness.
        checkpoint_every: steps between checkpoints.
        progress: show a progress bar.

    Returns:
        The network with the weights to ship, its arguments, and the result of the training.

    Raises:
        UserError: as `train`.
    """
    _, c, h, w = material.x.shape
    decided = data_args(recipe.kind, (c, h, w), num_classes)
    for key, value in decided.items():
        if (stated := recipe.network_args.get(key, value)) != value:
            raise UserError(f"recipe: network.args.{key} is {stated}, and the data have {value}; leave it out")
    args = {**decided, **recipe.network_args}

    def new_objective() -> Objective:
        network = build_network(recipe.kind, seed=stream_seed(seed, "weights"), **args)
        if recipe.start:
            _start_from(network, recipe.start, material)
        objective: Objective = objective_of(recipe.method)(
            network.to(material.x.device), material, seed, recipe.objective
        )
        objective.arithmetic = recipe.arithmetic
        recipe.arithmetic.prepare(objective.network)
        return objective

    phases, validate_every = recipe.in_steps(Order(len(material.x), recipe.batch, seed).per_epoch)
    plan = Plan(recipe.batch, phases, validate_every, checkpoint_every, seed, recipe.fingerprint(seed))
    with recipe.arithmetic.in_force():
        if recipe.time_limit:
            plan = replace(plan, time_limit=recipe.time_limit)
            fits = checkpoint.exists()
            plan = resumed_plan(checkpoint, plan) if fits else plan_that_fits(new_objective, plan, recipe.time_limit)
        objective = new_objective()
        result = fit(objective, plan, checkpoint, progress=progress)
    objective.network.load_state_dict(result.weights)
    return objective.network, args, result


def _start_from(network: nn.Module, name: str, material: Material) -> None:
    """Load trained weights into a network."""
    try:
        network.load_state_dict(material.trained(name).state_dict())
    except RuntimeError:
        text = f'recipe: start = "{name}" is of another network than network.kind and network.args'
        raise UserError(f'{text}; make them equal, or start anew (start = "")') from None


def _description(recipe: Recipe, result: Result) -> dict[str, object]:
    return {
        **recipe.described(),
        "steps": int(result.history[-1]["step"]),
        "shipped_step": result.step,
        "torch": torch.__version__,
    }


def _metrics(result: Result) -> dict[str, object]:
    shipped = next(row for row in result.history if row["step"] == result.step)
    return {"validation": shipped, "history": _thin(result.history)}


def _thin(history: list[dict[str, float]], keep: int = 20) -> list[dict[str, float]]:
    """Return at most about `keep` rows, the last among them, with six significant digits."""
    rows = history[:: -max(1, len(history) // keep)][::-1]
    return [{n: float(f"{v:.6g}") for n, v in row.items()} for row in rows]


def _load_material(dataset: str, root: Path | None, out: Path, seed: int) -> tuple[Material, int]:
    def trained(name: str) -> nn.Module:
        return load_classifier(name, dataset, root=out.parent, training_seed=seed or None, data_root=root)

    def purifier(name: str) -> Purifier:
        inside: Json = {"classifier": "undefended"} if is_plugin(name) else {}
        roots: Json = {"weights_root": out.parent, "data_root": root}
        try:
            defense = load_model(name, dataset, training_seed=seed or None, **roots, **inside)
        except UserError as error:
            raise error.within("recipe: objective.purifier") from None
        if not isinstance(defense, Purified):
            raise UserError(f'recipe: objective.purifier = "{name}" purifies nothing; name a purifier, as "adp"')
        return defense.purifier

    data, held = (load_dataset(dataset, split, root=root) for split in ("train", "validation"))
    return Material(data.x, data.y, held.x, held.y, trained, purifier), data.num_classes
