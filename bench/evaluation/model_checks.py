"""Checks of a model before it is attacked; each failure is one line with its remedy."""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator
from contextlib import suppress
from types import CodeType, FunctionType

import torch
from torch import Tensor, nn

from bench.evaluation.batching import draws_for_batch
from bench.evaluation.devices import device_of
from bench.evaluation.input_hints import of_one, takes
from bench.evaluation.isolation import preserve_global_state, state
from defenses.core.defense import Defense, UserModule
from defenses.core.noise import Noise
from defenses.utils.errors import UserError
from defenses.utils.isolation import seeded_globals

_NEIGHBOUR_TOLERANCE = 1e-3  # relative; kernels for other batch sizes differ by 1e-6
_DECLARE = "declare it random: stochastic = true in a board, --stochastic in a command, stochastic=True in Python"
_CALLS, _SECONDS = 40, 2.0  # further calls of a user's module on an image, and their time


def check_model(defense: Defense, x: Tensor, num_classes: int, label: str, *, probabilities: bool = False) -> bool:
    """Check a model on a few images; every command and function that judges a model calls this first.

    The settings of the process (default types, threads, working directory) stay as they are.

    Args:
        defense: the model, on any device.
        x: images of the data set, at best 8, float32 [B, C, H, W] in [0, 1].
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
    with preserve_global_state(), torch.no_grad():
        return _checked(defense, x.to(device_of(defense)), num_classes, label, probabilities=probabilities)


def _checked(defense: Defense, x: Tensor, num_classes: int, label: str, *, probabilities: bool) -> bool:
    _check_mode(defense, label)
    before = state(defense)
    noise, copied = Noise.of(0, len(x), x.device), x.clone()
    logits = logits_of(defense, copied, noise, label)
    if not torch.equal(copied, x):
        raise UserError(f"{label} writes into the images it is given; let it work on a copy (x = x.clone())")
    _check_logits(logits, (len(x), num_classes), label)
    # The classifier behind a purifier may return them where the combination of runs does not.
    bare = defense.logits(x, noise, gradient="blind") if "blind" in defense.gradients else logits
    softmax = are_probabilities(logits) or are_probabilities(bare)
    if softmax and not probabilities:
        problem = squashed(logits) or squashed(bare)
        raise UserError(f"{label} {problem}; purebench run and audit take it as it is with --force, and mark it")
    again = defense.logits(x, noise)
    if state(defense) != before:
        raise UserError(
            f"{label} changes its own parameters or buffers when it is called "
            "(running statistics, a counter); freeze them"
        )
    refuse_random(defense, logits, again, label)
    if user_code(defense) and not defense.stochastic:
        _check_many_calls(defense, x, noise, label)
    if not draws_for_batch(defense):
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


def user_code(defense: Defense) -> bool:
    """Return True if a defense, or a part of it, is a user's own module."""
    return "provenance" not in vars(defense) or bool(vars(defense).get("user_parts"))


def same_answers(first: Tensor, second: Tensor) -> bool:
    """Return True if two tensors of logits agree but for rounding; NaN equals NaN."""
    return torch.allclose(first, second, rtol=1e-4, atol=1e-5, equal_nan=True)


def _check_many_calls(defense: Defense, x: Tensor, noise: Noise, label: str) -> None:
    """Refuse a module that answers otherwise in some of many calls on the first image."""
    image, stream, begun = x[:1], noise.rows(slice(0, 1)), time.perf_counter()
    first = logits_of(defense, image, stream, label, among=len(x))
    for _ in range(_CALLS):
        refuse_random(defense, first, defense.logits(image, stream), label)
        if time.perf_counter() - begun > _SECONDS:
            return


def refuse_random(defense: Defense, logits: Tensor, again: Tensor, label: str) -> None:
    """Refuse a module whose logits [B, K] of two calls under the same noise differ."""
    if same_answers(logits, again):
        return
    remedy = (
        "it draws from a generator of its own; let it use the global one, or subclass Defense and use `noise`"
        if defense.stochastic
        else f"it is random; {_DECLARE}"
    )
    raise UserError(f"{label} returns different logits for the same images: {remedy}")


def _check_rows_alone(defense: Defense, x: Tensor, noise: Noise, logits: Tensor, label: str) -> None:
    """Refuse a module whose logits of an image depend on the rest of the batch."""
    alone = logits_of(defense, x[:1], noise.rows(slice(0, 1)), label, among=len(x))
    scale = logits.abs().amax().clamp_min(1e-6)
    if (alone - logits[:1]).abs().amax() > _NEIGHBOUR_TOLERANCE * scale:
        raise UserError(
            f"{label} answers differently when the other images in the batch change; "
            "use running statistics (model.eval()) and not those of the batch; or give it each image alone, as for "
            "dynamic quantisation: defenses.FixedBatch(model, 1)"
        )


def are_probabilities(logits: Tensor) -> bool:
    """Return True if outputs [B, K] all lie in [0, 1], as those of a softmax, a sigmoid or a clamp."""
    return bool(((logits >= 0) & (logits <= 1)).all())


def squashed(outputs: Tensor) -> str:
    """Return what is wrong with outputs [B, K] in [0, 1], and the remedy; "" for logits."""
    if not are_probabilities(outputs):
        return ""
    totals = outputs.sum(1)
    values = "probabilities" if torch.allclose(totals, torch.ones_like(totals), atol=1e-4) else "values in [0, 1]"
    return f"returns {values}; return logits (remove the softmax, sigmoid or clamp), or attacks lose gradients"


def refuse_train_mode(module: nn.Module, label: str, *, stochastic: bool | None = None) -> None:
    """Refuse a module any part of which is in train mode; if none of these depends on it, put them in evaluation mode.

    A part does not depend on its mode if no code of its class and bases names `training`.

    Args:
        module: user-defined.
        label: for messages.
        stochastic: True: the module is declared random, so dropout may be meant, and batch norms alone are refused;
            False: it is not declared, and may be; None: it cannot be.

    Raises:
        UserError: names the first such part and the place to call .eval().
    """
    training = [(name, m) for name, m in _with_modes(module) if getattr(m, "training", False)]
    if stochastic:
        training = [(name, m) for name, m in training if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if all(_ignores_mode(part) for _, part in training):
        for _, module in training:
            module.training = False
        return
    part = training[0][0]
    name = f'{label} (its part "{part}")' if part else label
    if any(map(_has_no_mode, module.modules())):
        remedy = "set .training = False there, as the exported program in it refuses eval()"
        raise UserError(f"{name} is in train mode; {remedy}")
    where = "model.eval() before it is given, or self.eval() at the end of __init__ of a class of your own"
    meant = "" if stochastic is not False else f"; if dropout is meant to stay on, {_DECLARE}"
    raise UserError(f"{name} is in train mode; call .eval() on {label}: {where}{meant}")


def _with_modes(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yield the names and parts of a module that have modes, itself first."""
    if not _has_no_mode(module):
        yield prefix, module
        for name, child in module.named_children():
            yield from _with_modes(child, f"{prefix}.{name}" if prefix else name)


def _ignores_mode(module: nn.Module) -> bool:
    """Return True if no code of a module's class, and of its bases below `nn.Module`, names `training`."""
    kinds = [kind for kind in type(module).__mro__ if kind not in nn.Module.__mro__]
    members = [member for kind in kinds for member in vars(kind).values()]
    functions = [getattr(m, "fget", None) or inspect.unwrap(getattr(m, "__func__", m)) for m in members]
    codes = [f.__code__ for f in functions if isinstance(f, FunctionType)]
    return not isinstance(module, torch.jit.ScriptModule) and not any(map(_names_training, codes))


def _names_training(code: CodeType) -> bool:
    """Return True if code, or a function in it, reads an attribute `training` or has the text."""
    inside = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return "training" in (*code.co_names, *code.co_consts) or any(map(_names_training, inside))


def _has_no_mode(module: nn.Module) -> bool:
    """Return True for what torch.export makes, whose mode is that of the export, and which refuses eval()."""
    return isinstance(module, torch.fx.GraphModule) and "eval" in vars(module)


def _check_mode(defense: Defense, label: str) -> None:
    """Refuse train mode and parameters of another type than float32."""
    if not isinstance(defense, UserModule):
        defense.train(False)  # a `Defense` has no other mode; its constructor may have left parts in another
    else:
        refuse_train_mode(defense.module, label, stochastic=defense.stochastic)
    dtypes = {p.dtype for p in defense.parameters() if p.is_floating_point()}
    if dtypes - {torch.float32}:
        raise UserError(f"{label} has parameters in {', '.join(sorted(map(str, dtypes)))}; call model.float() first")


def logits_of(defense: Defense, x: Tensor, noise: Noise, label: str, *, among: int = 0) -> Tensor:
    """Return the logits [B, K] of images; refuse a model that fails on their shape, naming what it takes.

    Args:
        defense: the model.
        x: images [B, C, H, W].
        noise: B streams.
        label: of the model.
        among: number of images with which the model has taken the first one; 0: none.

    Raises:
        UserError: it fails.
    """
    try:
        return defense.logits(x, noise)
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if among:
            raise UserError(f"{label} takes no batch of one image ({first}); {of_one(among)}") from error
        hint = takes(lambda images: defense.logits(images, Noise.of(0, len(images), images.device)), x)
        shape = "x".join(map(str, x.shape[1:]))
        text = f"{label} does not take {len(x)} images of {shape}: {first}"
        raise UserError(f"{text}; {hint}" if hint else text) from error


@torch.no_grad()
def has_random_outputs(module: nn.Module, x: Tensor) -> bool:
    """Return True if outputs on x [B, C, H, W] differ under three states of the global random generators.

    False for a module that fails on them: the checks name the problem.
    """
    outputs = []
    for seed in range(3):
        with seeded_globals(seed, x.device), suppress(Exception):
            outputs.append(module(x))
    tensors = [output for output in outputs if isinstance(output, Tensor)]
    return any(not torch.equal(tensors[0], other) for other in tensors[1:])
