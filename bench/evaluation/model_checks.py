"""Checks of a model before it is attacked; each failure is one line with its remedy."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.evaluation.isolation import state
from defenses.core.defense import Defense, UserModule
from defenses.core.noise import Noise
from defenses.utils.errors import UserError
from defenses.utils.isolation import seeded_globals

_NEIGHBOUR_TOLERANCE = 1e-3  # relative; kernels for other batch sizes differ by 1e-6


@torch.no_grad()
def check_model(defense: Defense, x: Tensor, num_classes: int, label: str, *, probabilities: bool = False) -> bool:
    """Check a model on a few images.

    Args:
        defense: the model.
        x: at least 4 images of the data set, float32 [B, C, H, W] in [0, 1].
        num_classes: of the data set.
        label: of the model, for messages.
        probabilities: accept a model that returns probabilities.

    Returns:
        True if the model returns probabilities.

    Raises:
        UserError: train mode, wrong input size, wrong number of classes, probabilities, non-finite values, a module
            that changes itself, outputs that depend on neighbours in the batch, a random module declared
            deterministic.
    """
    _check_mode(defense, label)
    before = state(defense)
    noise, copied = Noise.of(0, len(x), x.device), x.clone()
    logits = _call(defense, copied, noise, label)
    if not torch.equal(copied, x):
        raise UserError(f"{label} writes into the images it is given; let it work on a copy (x = x.clone())")
    _check_logits(logits, (len(x), num_classes), label)
    # The classifier behind a purifier may return them where the combination of runs does not.
    bare = defense.logits(x, noise, gradient="blind") if "blind" in defense.gradients else logits
    softmax = are_probabilities(logits) or are_probabilities(bare)
    if softmax and not probabilities:
        raise UserError(
            f"{label} returns probabilities; return logits (remove the softmax), or attacks lose gradients; "
            "purebench run and audit take it as it is with --force, and mark it"
        )
    again = defense.logits(x, noise)
    if state(defense) != before:
        raise UserError(
            f"{label} changes its own parameters or buffers when it is called "
            "(running statistics, a counter); freeze them"
        )
    _check_repeatable(defense, logits, again, label)
    if not (isinstance(defense, UserModule) and defense.stochastic):  # draws for a whole batch: rows cannot be compared
        _check_rows_alone(defense, x, noise, logits, label)
    return softmax


def _check_logits(logits: Tensor, shape: tuple[int, int], label: str) -> None:
    """Refuse outputs that are not finite logits of the given shape [B, K]."""
    if not isinstance(logits, Tensor):
        raise UserError(f"{label} returns {type(logits).__name__}; it must return one tensor of logits")
    images, num_classes = shape
    if logits.shape != shape:
        raise UserError(
            f"{label} returns shape {tuple(logits.shape)} for {images} images; "
            f"the data set has {num_classes} classes, so it must be ({images}, {num_classes})"
        )
    if not torch.isfinite(logits).all():
        raise UserError(f"{label} returns NaN or infinite logits on clean images; check its weights")


def _check_repeatable(defense: Defense, logits: Tensor, again: Tensor, label: str) -> None:
    """Refuse a module whose logits [B, K] of two calls under the same noise differ."""
    if torch.allclose(logits, again, rtol=1e-4, atol=1e-5):
        return
    remedy = (
        "it draws from a generator of its own; let it use the global one, or subclass Defense and use `noise`"
        if defense.stochastic
        else "it is random; declare it: --stochastic on the command line, stochastic = true in a board"
    )
    raise UserError(f"{label} returns different logits for the same images: {remedy}")


def _check_rows_alone(defense: Defense, x: Tensor, noise: Noise, logits: Tensor, label: str) -> None:
    """Refuse a module whose logits of an image depend on the rest of the batch."""
    alone = defense.logits(x[:1], noise.rows(slice(0, 1)))
    scale = logits.abs().amax().clamp_min(1e-6)
    if (alone - logits[:1]).abs().amax() > _NEIGHBOUR_TOLERANCE * scale:
        raise UserError(
            f"{label} answers differently when the other images in the batch change; "
            "use running statistics (model.eval()), not those of the batch"
        )


def are_probabilities(logits: Tensor) -> bool:
    """Return True if outputs [B, K] are non-negative and sum to 1, as those of a softmax."""
    ones = torch.ones(len(logits), device=logits.device, dtype=logits.dtype)
    return bool((logits >= 0).all()) and torch.allclose(logits.sum(1), ones, atol=1e-4)


def refuse_train_mode(module: nn.Module, label: str) -> None:
    """Refuse a module any part of which is in train mode.

    Args:
        module: user-defined.
        label: for messages.

    Raises:
        UserError: names the first such part and the place to call .eval().
    """
    part = next((name for name, m in module.named_modules() if m.training), None)
    if part is not None:
        name = f'{label} (its part "{part}")' if part else label
        where = "model.eval() before it is given, or self.eval() at the end of __init__ of a class of your own"
        raise UserError(f"{name} is in train mode; call .eval() on {label}: {where}")


def _check_mode(defense: Defense, label: str) -> None:
    """Refuse train mode and parameters of another type than float32."""
    if not isinstance(defense, UserModule):
        defense.train(False)  # a `Defense` has no other mode; its constructor may have left parts in another
    else:
        refuse_train_mode(defense.module, label)
    dtypes = {p.dtype for p in defense.parameters() if p.is_floating_point()}
    if dtypes - {torch.float32}:
        raise UserError(f"{label} has parameters in {', '.join(sorted(map(str, dtypes)))}; call model.float() first")


def _call(defense: Defense, x: Tensor, noise: Noise, label: str) -> Tensor:
    """Return the logits [B, K] of images; refuse a model that fails on their shape."""
    try:
        return defense.logits(x, noise)
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        shape = "x".join(map(str, x.shape[1:]))
        raise UserError(f"{label} does not take images of {shape} in batches: {first}") from error


@torch.no_grad()
def has_random_outputs(module: nn.Module, x: Tensor) -> bool:
    """Return True if outputs on x [B, C, H, W] differ under three states of the global random generators."""
    outputs = []
    for seed in range(3):
        with seeded_globals(seed, x.device):
            outputs.append(module(x))
    return any(not torch.equal(outputs[0], other) for other in outputs[1:])
