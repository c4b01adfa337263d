"""Measure the accuracy of defenses by corruption and severity, resumably."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.board.indices import resolve
from bench.execution.sources import Sources
from bench.store.jsonl import JsonlFile, check_about, read
from bench.store.manifest import record_run
from bench.tracks.outdated import drop_outdated
from defenses.data.dataset import dataset_info, load_dataset
from defenses.data.sources import corrupted, robustbench
from defenses.data.sources.corrupted import SEVERITIES
from defenses.utils.errors import UserError, check_whole, unknown
from defenses.utils.json_values import Json
from defenses.utils.reads import running
from defenses.utils.text import file_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from bench.board.defense_entry import Candidate
    from defenses.core.defense import Defense
    from defenses.data.dataset import Dataset

CLEAN = "clean"
KEPT_NOTE = "finished corruptions are kept"


@dataclass(frozen=True)
class CorruptionJob:
    """Defenses, and the corrupted images on which they are judged.

    Args:
        defenses: each with another label.
        dataset: a clean data set, which is corrupted here; or "cifar10-c" and its like, whose files are read.
        corruptions: in table order; empty: all.
        severities: among "1" to "5".
        split: of the data set.
        indices: name of an index list.
        draws: held-out draws of a stochastic defense.
        seed: of the draws.
        data_root: where data sets lie.

    Raises:
        UserError: unknown corruption or severity, a seed below 0, or two labels that would share a file.
    """

    defenses: Sequence[Candidate]
    dataset: str
    corruptions: tuple[str, ...] = ()
    severities: tuple[str, ...] = SEVERITIES
    split: str = "test"
    indices: str = "all"
    draws: int = 5
    seed: int = 0
    data_root: Path | None = None

    def __post_init__(self) -> None:
        check_whole(0, seed=self.seed)
        known: Sequence[str] = robustbench.CORRUPTIONS if self.published else list(corrupted.CORRUPTIONS)
        for kind in self.corruptions:
            if kind not in known:
                raise unknown("corruption", kind, known)
        for severity in self.severities:
            if severity not in SEVERITIES:
                raise UserError(f"the severity is {severity}; it must be 1, 2, 3, 4 or 5")
        files = [file_label(d.label) for d in self.defenses]
        for defense in self.defenses:
            if files.count(file_label(defense.label)) > 1:
                raise UserError(f'the defense "{defense.label}" shares its file with another; give each another label')
        if not self.corruptions:
            object.__setattr__(self, "corruptions", tuple(known))

    @property
    def published(self) -> bool:
        """True if the corrupted images are files of RobustBench's."""
        return self.dataset in ("cifar10-c", "cifar100-c")

    def sets(self) -> Iterator[tuple[str, str, str]]:
        """Yield (corruption, severity, data set), the clean images first; the files of CIFAR-10-C have none."""
        if not self.published:
            yield CLEAN, "0", self._set(CLEAN, "0")
        for kind in self.corruptions:
            for severity in self.severities:
                yield kind, severity, self._set(kind, severity)

    def _set(self, kind: str, severity: str) -> str:
        """Return the name of a data set."""
        name = f"{self.dataset}/{kind}/{severity}"
        return self.dataset if kind == CLEAN else name if self.published else f"corrupted:{name}"

    def _revision(self, name: str) -> str:
        return dataset_info(name, root=self.data_root).revision

    def run(self, folder: Path, report: Callable[[str], None] = lambda _: None) -> None:
        """Judge the data sets that are not in the folder yet: a file for each defense, a line for each data set.

        Args:
            folder: gets a file for each label, and manifest.json.
            report: called with a line of text after every data set.

        Raises:
            UserError: missing files, a folder of other work, or a defense whose answers are not finite on a data set.
        """
        revisions = {f"{kind}/{level}": self._revision(name) for kind, level, name in self.sets()}
        self._images(next(self.sets())[2])  # bad index lists are refused before any work
        facts = {key: getattr(self, key) for key in ("dataset", "split", "indices", "draws", "seed")}
        files = [self._file(folder, defense, facts) for defense in self.defenses]
        for path in sorted(folder.glob("*.jsonl")):  # the rows of a table share their images
            about, entries, _ = read(path)
            check_about(path, about, facts)
            self._check_revisions(path, about["label"], entries, revisions)
        for defense, file in zip(self.defenses, files, strict=True):
            file.check()
            if not file.path.exists():
                self._checked(defense)  # a defense that cannot be judged leaves no file
        fingerprints = {d.label: d.fingerprint for d in self.defenses}
        with record_run(folder, f"corruptions-{self.dataset}", fingerprints, **facts) as begin:
            for defense, file in zip(self.defenses, files, strict=True):
                with file.open():
                    self._run_defense(defense, file, revisions, begin, report)

    def _check_revisions(self, path: Path, label: str, entries: Json, today: Mapping[str, str]) -> None:
        """Refuse a file that would keep lines of an earlier revision of the data beside those of this run."""
        kept = set(entries) - (set(today) if label in [d.label for d in self.defenses] else set())
        for key in sorted(kept):
            if key not in today and self.published:  # a file that may not be there
                continue
            revision = today.get(key) or self._revision(self._set(*key.split("/")))
            if entries[key]["revision"] != revision:
                raise UserError(
                    f"{path} has {key} of an earlier revision of {self.dataset}, which this run does not do again; "
                    "run all defenses, corruptions and severities of the folder, or choose another --out"
                )

    def _run_defense(
        self,
        candidate: Candidate,
        file: JsonlFile,
        revisions: Mapping[str, str],
        begin: Callable[[], None],
        report: Callable[[str], None],
    ) -> None:
        """Judge a defense on the data sets that its file does not have yet."""
        defense, origin, today = None, candidate.reference, Sources()
        if note := drop_outdated(file, origin, revisions):
            report(f"{candidate.label}: {note}")
        for kind, severity, dataset in self.sets():
            if f"{kind}/{severity}" in file.entries:
                continue
            with running():
                if defense is None:
                    defense = self._checked(candidate)
                begin()
                shares = self._shares(defense, candidate.label, dataset)
            sources = today.of_defense(origin) if origin else []
            about = {"revision": revisions[f"{kind}/{severity}"]} | ({"sources": sources} if sources else {})
            file.add(f"{kind}/{severity}", {**about, **shares})
            accuracy = sum(shares["right"]) / len(shares["right"])
            report(f"{candidate.label}: {kind} {severity}: {100 * accuracy:.1f}%")

    def _checked(self, candidate: Candidate) -> Defense:
        """Return a loaded defense after the checks of a model."""
        from bench.evaluation.model_checks import check_model

        data, _ = self._images(next(self.sets())[2])
        defense = candidate.load()
        check_model(defense, data.first(8), data.num_classes, candidate.label, probabilities=True)
        return defense

    @staticmethod
    def _file(folder: Path, defense: Candidate, facts: Mapping[str, object]) -> JsonlFile:
        """Return the file of a defense."""
        about = {"label": defense.label, "defense": defense.fingerprint, **facts}
        return JsonlFile(folder / f"{file_label(defense.label)}.jsonl", about)

    def _images(self, dataset: str) -> tuple[Dataset, Tensor]:
        """Return (the images of the index list, their positions in the data set)."""
        import torch

        data = load_dataset(dataset, self.split, root=self.data_root)
        at = resolve(self.indices, len(data), dataset=dataset, split=self.split, labels=data.y.tolist).positions
        return data.select(at), torch.tensor(at)

    def _shares(self, defense: Defense, label: str, dataset: str) -> Json:
        """Return for each image the shares of held-out draws that are right, and that are refused."""
        from bench.evaluation.verdict import verdict

        data, index = self._images(dataset)
        judged = verdict(defense, data.x, index, draws=self.draws, selection=0, seed=self.seed)
        if not judged.finite.all():
            problem = f"{label} returned logits or scores that are not finite on {dataset}"
            raise UserError(f"{problem}; {KEPT_NOTE}; mend the defense, or leave it out")
        right = (judged.predictions == data.y) & ~judged.rejected
        return {"right": right.float().mean(0).tolist(), "rejected": judged.rejected.float().mean(0).tolist()}


def file_label(label: str) -> str:
    """Return a defense's label as the name of a file, at most 100 characters."""
    return file_name(label)[:100]
