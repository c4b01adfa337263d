"""`purebench corruptions`, without the command line: accuracy by corruption and severity, resumably, and its tables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.store.jsonl import Ledger, check_about, read
from defenses.data.sources import corrupted, robustbench
from defenses.data.sources.corrupted import SEVERITIES
from defenses.utils.errors import UserError, check_whole, unknown

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from bench.board.defense_entry import Candidate
    from defenses.data.dataset import Dataset, DatasetInfo

CLEAN = "clean"
_KEPT = "finished corruptions are kept"


@dataclass(frozen=True)
class CorruptionJob:
    """Which defenses meet which corruptions of which images.

    Args:
        defenses: each with a label of its own.
        dataset: a clean data set, which is corrupted here; or "cifar10-c" and its like, whose files are read.
        corruptions: in table order; empty: all.
        severities: of "1" to "5".
        split: of the data set.
        indices: index list.
        draws: held-out draws of a stochastic defense.
        seed: of the draws.
        data_root: where data sets lie.

    Raises:
        UserError: a corruption or severity that there is not, a seed below 0, or two labels that would share a file.
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
        files = [file_label(one.label) for one in self.defenses]
        for one in self.defenses:
            if files.count(file_label(one.label)) > 1:
                raise UserError(f'the defense "{one.label}" shares its file with another; give each a label of its own')
        if not self.corruptions:
            object.__setattr__(self, "corruptions", tuple(known))

    @property
    def published(self) -> bool:
        """Whether the corrupted images are files of RobustBench's."""
        return self.dataset in ("cifar10-c", "cifar100-c")

    def sets(self) -> Iterator[tuple[str, str, str]]:
        """(corruption, severity, data set), the clean images first; the files of CIFAR-10-C have none."""
        if not self.published:
            yield CLEAN, "0", self.dataset
        form = "{}/{}/{}" if self.published else "corrupted:{}/{}/{}"
        for kind in self.corruptions:
            for severity in self.severities:
                yield kind, severity, form.format(self.dataset, kind, severity)

    def run(self, folder: Path, tell: Callable[[str], None] = lambda _: None) -> None:
        """Judge what the folder does not have yet: a file a defense, a line a data set.

        Args:
            folder: gets a file for each label, and manifest.json.
            tell: gets a line after every data set.

        Raises:
            UserError: missing files, a folder of other work, or a defense whose answers are not finite on a data set.
        """
        from bench.store.manifest import journal
        from defenses.data.dataset import dataset_info

        infos = {name: dataset_info(name, root=self.data_root) for _, _, name in self.sets()}  # before any work
        self._images(next(self.sets())[2])
        facts = {key: getattr(self, key) for key in ("dataset", "split", "indices", "draws", "seed")}
        ledgers = [self._ledger(folder, one, facts) for one in self.defenses]
        for path in sorted(folder.glob("*.jsonl")):
            check_about(path, read(path)[0], facts)  # the images of a table are the same ones
        for one, ledger in zip(self.defenses, ledgers, strict=True):
            ledger.check()
            if not ledger.path.exists():
                one.load()  # what cannot be loaded leaves no file
        fingerprints = {one.label: one.fingerprint for one in self.defenses}
        with journal(folder, f"corruptions-{self.dataset}", fingerprints, **facts) as begin:
            for one, ledger in zip(self.defenses, ledgers, strict=True):
                with ledger.open():
                    self._run_one(one, ledger, infos, begin, tell)

    def _run_one(
        self,
        one: Candidate,
        ledger: Ledger,
        infos: Mapping[str, DatasetInfo],
        begin: Callable[[], None],
        tell: Callable[[str], None],
    ) -> None:
        defense = None
        for kind, severity, dataset in self.sets():
            if f"{kind}/{severity}" in ledger.entries:
                continue
            if defense is None:
                defense = one.load()
            begin()
            found = self._judged(defense, one.label, dataset)
            ledger.add(f"{kind}/{severity}", {"revision": infos[dataset].revision, **found})
            tell(f"{one.label}: {kind} {severity}: {100 * sum(found['right']) / len(found['right']):.1f}%")

    @staticmethod
    def _ledger(folder: Path, one: Candidate, facts: Mapping[str, Any]) -> Ledger:
        about = {"label": one.label, "defense": one.fingerprint, **facts}
        return Ledger(folder / f"{file_label(one.label)}.jsonl", about)

    def _images(self, dataset: str) -> tuple[Dataset, Tensor]:
        """(the chosen images of a data set, their positions)."""
        import torch

        from bench.board.indices import resolve
        from defenses.data.dataset import load_dataset

        data = load_dataset(dataset, self.split, root=self.data_root)
        at = resolve(self.indices, len(data), dataset=dataset, split=self.split, labels=data.y.tolist).positions
        return data.select(at), torch.tensor(at)

    def _judged(self, defense: Any, label: str, dataset: str) -> dict[str, Any]:
        """Per image, the share of held-out draws that are right and of those that are refused."""
        from bench.evaluation.verdict import verdict

        data, index = self._images(dataset)
        said = verdict(defense, data.x, index, draws=self.draws, selection=0, seed=self.seed)
        if not said.finite.all():
            what = f"{label} returned logits or scores that are not finite on {dataset}"
            raise UserError(f"{what}; {_KEPT}; mend the defense, or leave it out")
        right = (said.predictions == data.y) & ~said.rejected
        return {"right": right.float().mean(0).tolist(), "rejected": said.rejected.float().mean(0).tolist()}


def file_label(label: str) -> str:
    """The label as it names a file or folder."""
    return re.sub(r"[^\w.]+", "-", label).strip("-.")[:100]
