"""Progress of an evaluation, on disk. pyautoattack's class cannot read what it writes: its sets come back as texts."""

import json
from pathlib import Path

import torch
from pyautoattack.state import EvaluationState as _EvaluationState


class EvaluationState(_EvaluationState):  # type: ignore[misc]
    """Attacks that have run, and images that withstand them."""

    def to_disk(self, force: bool = False) -> None:
        """Write the file in one move; pyautoattack's clock spares writes, here there is one an attack."""
        if self.path is None or not force:
            return
        flags = None if self.robust_flags is None else [bool(f) for f in self.robust_flags.tolist()]
        state = {
            "attacks_to_run": sorted(self.attacks_to_run),
            "run_attacks": sorted(self.run_attacks),
            "robust_flags": flags,
            "clean_accuracy": self.clean_accuracy,
        }
        temporary = self.path.with_name(f".{self.path.name}.tmp")
        temporary.write_text(json.dumps(state))
        temporary.replace(self.path)

    @classmethod
    def from_disk(cls, path: Path) -> "EvaluationState":
        """Read a file; its flags are float64 (1: withstands), because robustbench takes their mean."""
        state = json.loads(Path(path).read_text())
        flags = state["robust_flags"]
        return cls(
            set(state["attacks_to_run"]),
            Path(path),
            set(state["run_attacks"]),
            None if flags is None else torch.tensor(flags, dtype=torch.float64),
            _clean_accuracy=state["clean_accuracy"],
        )
