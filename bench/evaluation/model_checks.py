"""What a model must be before it is worth attacking; each failure is one line that says how to mend it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.evaluation.isolation import state
from defenses.core.defense import Defense, Foreign
from defenses.core.noise import Noise
from defenses.utils.errors import UserError

_NEIGHBOUR_TOLERANCE = 1e-3  # relative; kernels for other batch sizes differ by 1e-6


@torch.no_grad()
def check_model(defense: Defense, x: Tensor, num_classes: int, label: str, *, probabilities: bool = False) -> bool:
    """Check a model on a few images.

    Args:
        defense: the model.
        x: at least 4 images of the data set, float32 [B, C, H, W] in [0, 1].
        num_classes: what the data set has.
        label: how the model is called in messages.
        probabilities: whether the user insists on a model that returns them.

    Returns:
        Whether it returns them.

    Raises:
        UserError: train mode, wrong input size, wrong number of classes, probabilities, non-finite values, a module
            that changes itself, outputs that depend on neighbours in the batch, a module taken for deterministic that
            is not.
    """
    _check_mode(defense, label)
    before = state(defense)
    noise, given = Noise.of(0, len(x), x.device), x.clone()
    logits = _call(defense, given, noise, label)
    if not torch.equal(given, x):
        raise UserError(f"{label} writes into the images it is given; let it work on a copy (x = x.clone())")
    if not isinstance(logits, Tensor):
        raise UserError(f"{label} returns {type(logits).__name__}; it must return one tensor of logits")
    if logits.shape != (len(x), num_classes):
        raise UserError(
            f"{label} returns shape {tuple(logits.shape)} for {len(x)} images; "
            f"the data set has {num_classes} classes, so it must be ({len(x)}, {num_classes})"
        )
    if not torch.isfinite(logits).all():
        raise UserError(f"{label} returns NaN or infinite logits on clean images; check its weights")
    # The classifier behind a purifier may return them where its runs are combined to something else.
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
            f"{label} changes its own parameters or buffers when it is asked "
            "(running statistics, a counter); freeze them"
        )
    if not torch.allclose(logits, again, rtol=1e-4, atol=1e-5):
        remedy = (
            "it draws from a generator of its own; let it use the global one, or subclass Defense and use `noise`"
            if defense.stochastic
            else "it is random; declare it: --stochastic on the command line, stochastic = true in a board"
        )
        raise UserError(f"{label} gives two answers to one question: {remedy}")
    if isinstance(defense, Foreign) and defense.stochastic:
        return softmax  # its draws are made for a whole batch, so rows cannot be compared
    alone = defense.logits(x[:1], noise.rows(slice(0, 1)))
    scale = logits.abs().amax().clamp_min(1e-6)
    if (alone - logits[:1]).abs().amax() > _NEIGHBOUR_TOLERANCE * scale:
        raise UserError(
            f"{label} answers differently when the other images in the batch change; "
            "use running statistics (model.eval()), not those of the batch"
        )
    return softmax


def are_probabilities(logits: Tensor) -> bool:
    """Whether outputs [B, K] are what a softmax makes."""
    ones = torch.ones(len(logits), device=logits.device, dtype=logits.dtype)
    return bool((logits >= 0).all()) and torch.allclose(logits.sum(1), ones, atol=1e-4)


def refuse_train_mode(module: nn.Module, label: str) -> None:
    """Refuse a module any part of which is in train mode.

    Args:
        module: somebody's own.
        label: how it is called in messages.

    Raises:
        UserError: with the first such part, and where to call .eval().
    """
    part = next((name for name, m in module.named_modules() if m.training), None)
    if part is not None:
        which = f'{label} (its part "{part}")' if part else label
        where = "model.eval() before it is given, or self.eval() at the end of __init__ of a class of your own"
        raise UserError(f"{which} is in train mode; call .eval() on {label}: {where}")


def _check_mode(defense: Defense, label: str) -> None:
    if not isinstance(defense, Foreign):
        defense.train(False)  # its only mode, whatever its constructor left
    else:
        refuse_train_mode(defense.module, label)
    dtypes = {p.dtype for p in defense.parameters() if p.is_floating_point()}
    if dtypes - {torch.float32}:
        raise UserError(f"{label} has parameters in {', '.join(sorted(map(str, dtypes)))}; call model.float() first")


def _call(defense: Defense, x: Tensor, noise: Noise, label: str) -> Tensor:
    try:
        return defense.logits(x, noise)
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        shape = "x".join(map(str, x.shape[1:]))
        raise UserError(f"{label} does not take images of {shape} in batches: {first}") from error


@torch.no_grad()
def looks_random(module: nn.Module, x: Tensor) -> bool:
    """Whether a module answers differently under three states of the global random generators."""
    from defenses.utils.isolation import seeded_globals

    outputs = []
    for seed in range(3):
        with seeded_globals(seed, x.device):
            outputs.append(module(x))
    return any(not torch.equal(outputs[0], other) for other in outputs[1:])
