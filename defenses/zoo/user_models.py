"""Build defenses, filters and purifiers of a user's own classes."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import TYPE_CHECKING, Any

from defenses.core.purifier import is_purifier
from defenses.utils.errors import UserError
from defenses.utils.plugins import forbid_exit, line_of, load_object, takes_seed

if TYPE_CHECKING:
    from defenses.core.defense import Defense
    from defenses.core.purifier import Purifier
    from defenses.zoo.composition import Parts


def load_plugin(
    name: str,
    params: Mapping[str, Any],
    parts: Parts,
) -> Defense:
    """Build a defense of a user's class, function or instance; a purifier is put before the classifier it names.

    Args:
        name: "module:Class" or "file.py:Class".
        params: of its class or function; of a purifier also those of a composition.
        parts: of a composition; its training seed is passed on to the class.

    Raises:
        UserError: it cannot be imported or built, or is no module.
    """
    from torch import nn

    from defenses.core.defense import Defense, Foreign
    from defenses.core.purifier import Purifier
    from defenses.utils.identity import check_built
    from defenses.zoo.cards import refuse_around

    found = load_object(name)
    try:
        if is_purifier(found):
            with forbid_exit():
                return _composed(name, found, params, parts)
        if not _takes(found, params):
            refuse_around(name, params)
        if parts.training_seed is not None:
            if isinstance(found, nn.Module):
                raise UserError(f'"{name}" is made already, so it takes no training seed; name its class')
            params = {**params, "training_seed": parts.training_seed}
        with forbid_exit():
            model = found if isinstance(found, nn.Module) else found(**params)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise UserError(f'"{name}" cannot be built: {line_of(error)}') from error
    if not isinstance(model, nn.Module):
        raise UserError(f'"{name}" is no torch.nn.Module but {type(model).__name__}; give a module or what makes one')
    check_built(model)
    if isinstance(model, Purifier):
        raise UserError(f'"{name}" makes a purifier; name its class, or return Purified(purifier, classifier)')
    return model if isinstance(model, Defense) else Foreign(model, stochastic=False)


def _composed(name: str, found: Any, params: Mapping[str, Any], parts: Parts) -> Defense:
    """Put a purifier, a class or an instance, into the composition that `params` describe."""
    from defenses.zoo.composition import KEYS, composed

    own = {key: value for key, value in params.items() if key not in KEYS}
    around = {key: value for key, value in params.items() if key in KEYS}
    defense = composed(name, _made(name, found, own, parts.training_seed), around, parts)
    vars(defense)["own_parts"] = parts.own
    return defense


def load_filter(name: str, params: Mapping[str, Any], training_seed: int | None = None) -> Purifier:
    """Make a filter of one's own purifier: a class, a function that makes one, or an instance.

    Args:
        name: "module:Class" or "file.py:Class".
        params: of its class or function.
        training_seed: given to a class that takes it.

    Raises:
        UserError: it cannot be imported or built, or is no purifier.
    """
    from defenses.core.purifier import Purifier
    from defenses.utils.identity import check_built

    found = load_object(name)
    try:
        with forbid_exit():
            made = _made(name, found, params, training_seed)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise UserError(f'"{name}" cannot be built: {line_of(error)}') from error
    if not isinstance(made, Purifier):
        raise UserError(f'filter "{name}" is a {type(made).__name__}; let it be a defenses.core.purifier.Purifier')
    check_built(made)
    return made.eval()


def _made(name: str, found: Any, own: Mapping[str, Any], training_seed: int | None) -> Any:
    """The module itself, or what a class or function makes of its own parameters."""
    from torch import nn

    if isinstance(found, nn.Module):
        if own:
            raise UserError(f'"{name}" is made already, so it takes no "{next(iter(own))}"; name its class')
        return found
    seeded = training_seed is not None and takes_seed(found)
    return found(**own, **({"training_seed": training_seed} if seeded else {}))


def _takes(found: Any, params: Mapping[str, Any]) -> bool:
    """Whether a class or function of one's own can be called with these parameters, as far as its signature tells."""
    try:
        signature(found).bind(**params)
    except (TypeError, ValueError):
        return False
    return True
