"""The clean accuracy of a model on images in memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from bench.board.evaluation_options import plain_int
from bench.board.given_model import as_module
from bench.evaluation.devices import device_of
from bench.evaluation.model_checks import check_model, logits_of, refuse_random, refuse_train_mode, user_code
from defenses.core.defense import Defense, UserModule
from defenses.core.noise import Noise
from defenses.data.arrays import as_array
from defenses.utils.devices import device_named
from defenses.utils.errors import UserError, check_whole


def clean_accuracy(
    model: nn.Module,
    x: Any,
    y: Any,
    batch_size: int = 100,
    device: object = None,
    *,
    stochastic: bool = False,
    seed: int = 0,
) -> float:
    """Return the accuracy of a model on images, in one draw; an image that a detector refuses counts as wrong.

    The model is checked as before a run: some 40 calls on a few images, and two on each batch of own code that is not
    declared random.

    Args:
        model: module from images float32 [B, C, H, W] in [0, 1] to logits [B, K].
        x: images, float32 [N, C, H, W] in [0, 1], a tensor or NumPy array.
        y: labels, int64 [N], likewise.
        batch_size: images of a batch, at least 1.
        device: device of the batches, which the model must be on; None: that of the model.
        stochastic: True if the outputs of a module that is no `Defense` are random.
        seed: of the draw of a random model.

    Returns:
        Fraction of correct predictions, in [0, 1].

    Raises:
        UserError: labels of another shape or length, no images, x outside [0, 1], a model that fails the checks of a
            run (train mode, wrong outputs, undeclared randomness), or a bad batch size or device.
    """
    check_whole(1, batch_size=batch_size)
    check_whole(0, seed=seed)
    batch_size, model = plain_int(batch_size), as_module(model, "a torch.nn.Module, as load_model makes of a name")
    x, y = (_as_tensor(values, name) for values, name in ((x, "images"), (y, "labels")))
    x = x.float()
    _check_images(x, y)
    defense: Defense = model if isinstance(model, Defense) else UserModule(model, stochastic=stochastic)
    target = device_of(defense) if device is None else device_named(str(device))
    _check_classifier(defense, type(model).__name__, x[:8].to(target), y)
    correct, twice = 0, user_code(defense) and not defense.stochastic
    with torch.no_grad():
        for start in range(0, len(x), batch_size):
            batch, labels = x[start : start + batch_size].to(target), y[start : start + batch_size]
            noise = Noise.of(seed, range(start, start + len(batch)), target)
            made = defense.decide(batch, noise)
            if twice:
                refuse_random(defense, made.logits, defense.logits(batch, noise), type(model).__name__)
            correct += int(((made.logits.argmax(1) == labels.to(target)) & ~made.rejected).sum())
    return correct / len(x)


def _as_tensor(values: Any, name: str) -> torch.Tensor:
    """Return numbers as a tensor."""
    array = as_array(values)
    if array.dtype.kind not in "biuf":
        raise UserError(f"the {name} are {str(values)[:40]!r}; give a tensor or NumPy array of numbers")
    return torch.as_tensor(array)


def _check_images(x: torch.Tensor, y: torch.Tensor) -> None:
    """Refuse images outside [0, 1], and labels that are no whole numbers [N], one for each image."""
    if x.ndim != 4:
        raise UserError(f"images are {list(x.shape)}; they must be [N, C, H, W]: x[None] for one image")
    if y.ndim != 1 or y.is_floating_point() or y.dtype == torch.bool:
        raise UserError(f"labels are {y.dtype} {list(y.shape)}; they must be whole numbers, [N]: y.flatten().long()")
    if len(x) != len(y) or len(x) == 0:
        raise UserError(f"there are {len(x)} images and {len(y)} labels; there must be as many, and at least one")
    if not bool(((x >= 0) & (x <= 1)).all()):
        raise UserError(f"images lie in [{float(x.min()):.3g}, {float(x.max()):.3g}]; scale them to [0, 1]")


def _check_classifier(defense: Defense, label: str, x: torch.Tensor, y: torch.Tensor) -> None:
    """Refuse a model that fails the checks of every command, or has fewer classes than the labels."""
    if isinstance(defense, UserModule):
        refuse_train_mode(defense.module, label, stochastic=defense.stochastic)
    with torch.no_grad():
        logits = logits_of(defense, x, Noise.of(0, len(x), x.device), label)
    classes = logits.shape[1] if isinstance(logits, torch.Tensor) and logits.ndim > 1 else int(y.max()) + 1
    check_model(defense, x, classes, label, probabilities=True)
    if not 0 <= int(y.min()) <= int(y.max()) < classes:
        raise UserError(
            f"labels run from {int(y.min())} to {int(y.max())}, and the model has {classes} classes, from 0"
        )
