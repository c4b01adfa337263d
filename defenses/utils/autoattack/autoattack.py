"""fra31's class AutoAttack, its arguments, defaults and printing, over pyautoattack's."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyautoattack
import torch
from torch import Tensor

from .other_utils import Logger
from .state import EvaluationState


class AutoAttack(pyautoattack.AutoAttack):  # type: ignore[misc]
    """See fra31/auto-attack. The parts `apgd`, `apgd_targeted`, `fab` and `square` may be set as its manual says."""

    attacks_to_run: list[str]

    def __init__(
        self,
        model: Callable[[Tensor], Tensor],
        norm: str = "Linf",
        eps: float = 0.3,
        seed: int | None = None,
        verbose: bool = True,
        attacks_to_run: Sequence[str] = (),
        version: str = "standard",
        is_tf_model: bool = False,
        device: str | torch.device = "cuda",
        log_path: str | Path | None = None,
    ):
        if is_tf_model:
            raise ValueError("is_tf_model=True needs fra31's own package and TensorFlow")
        if version in ("standard", "plus", "rand") and list(attacks_to_run):
            raise ValueError("attacks_to_run will be overridden unless you use version='custom'")
        listed = list(attacks_to_run)
        super().__init__(model, attacks=listed, device=device, eps=eps, norm=norm, seed=seed, version="custom")
        self.verbose, self.version, self.is_tf_model = verbose, version, is_tf_model
        self.logger = _VerboseLogger(self, log_path)
        self.apgd.logger = self.apgd_targeted.logger = self.logger
        if version in ("standard", "plus", "rand"):
            self.set_version(version)

    def set_version(self, version: str = "standard") -> None:
        """Set the attacks and parameters of a version."""
        self._set_version(version)

    def run_standard_evaluation(
        self,
        x_orig: Tensor,
        y_orig: Tensor,
        bs: int = 250,
        return_labels: bool = False,
        state_path: str | Path | None = None,
    ) -> Any:
        """Return the adversarial images, and with `return_labels` the classes that they get."""
        if state_path is not None:
            x_adv, y_adv = self._resumable(x_orig, y_orig, bs, Path(state_path))
        else:
            x_adv, y_adv = super().run_standard_evaluation(x_orig, y_orig, batch_size=bs)
        return (x_adv, y_adv) if return_labels else x_adv

    def run_standard_evaluation_individual(
        self, x_orig: Tensor, y_orig: Tensor, bs: int = 250, return_labels: bool = False
    ) -> dict[str, Any]:
        """Return the same for every attack by itself, by its name."""
        listed, verbose, results = self.attacks_to_run, self.verbose, {}
        if verbose:
            self.logger.info(f"using {self.version} version including {', '.join(listed)}")
        try:
            for name in listed:
                begin = time.time()
                self.attacks_to_run, self.verbose = [name], False
                x_adv, y_adv = self.run_standard_evaluation(x_orig, y_orig, bs, return_labels=True)
                results[name] = (x_adv, y_adv) if return_labels else x_adv
                share = self.clean_accuracy(x_adv, y_orig, bs)
                self.verbose = verbose
                self.logger.info(f"robust accuracy by {name.upper()} \t {share:.2%} \t ({time.time() - begin:.1f} s)")
        finally:
            self.attacks_to_run, self.verbose = listed, verbose
        return results

    def _resumable(self, x_orig: Tensor, y_orig: Tensor, bs: int, path: Path) -> tuple[Tensor, Tensor]:
        """Run attack after attack, each on what the ones before have left, as one call does; save the state between.

        As with fra31 the images of earlier calls are not in what a later one returns.
        """
        listed = self.attacks_to_run
        state = EvaluationState.from_disk(path) if path.exists() else EvaluationState(set(listed), path)
        if state.attacks_to_run != set(listed):
            raise ValueError(f"{path} is of the attacks {', '.join(sorted(state.attacks_to_run))}; give another path")
        x_adv = x_orig.clone()
        # Without an attack an evaluation is the prediction of the clean images.
        self.attacks_to_run = []
        try:
            _, clean = super().run_standard_evaluation(x_orig, y_orig, batch_size=bs)
            robust = clean == y_orig if state.robust_flags is None else state.robust_flags.bool().to(y_orig.device)
            state._clean_accuracy = float((clean == y_orig).double().mean())
            y_adv = clean.clone()
            for name in [a for a in listed if a not in state.run_attacks]:
                rows = robust.nonzero()[:, 0]
                if len(rows):
                    self.attacks_to_run = [name]
                    x_adv[rows], y_adv[rows] = super().run_standard_evaluation(
                        x_orig[rows], y_orig[rows], batch_size=bs
                    )
                    robust[rows] = y_adv[rows] == y_orig[rows]
                state._robust_flags = robust
                state.run_attacks.add(name)
                state.to_disk(force=True)
        finally:
            self.attacks_to_run = listed
        return x_adv, y_adv


class _VerboseLogger(Logger):
    """Logger that prints progress while its suite is verbose, and warnings always."""

    def __init__(self, suite: AutoAttack, log_path: str | Path | None):
        super().__init__(log_path)
        self.suite = suite

    def info(self, text: str) -> None:
        if self.suite.verbose:
            super().info(text)

    debug = info
