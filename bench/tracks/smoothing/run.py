"""Certify images of a defense, resumably: a file for each sigma, a line for each image."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from tqdm import tqdm

from bench.evaluation.devices import device_of
from bench.evaluation.model_checks import check_model
from bench.execution.sources import Sources
from bench.store.jsonl import JsonlFile
from bench.store.manifest import record_run
from bench.tracks.outdated import drop_outdated
from bench.tracks.smoothing.certify import CertificationProtocol, certified, check_form
from defenses.core.defense import Defense
from defenses.data.dataset import sha_of
from defenses.utils.errors import UserError, check_whole
from defenses.utils.hints import hint
from defenses.utils.json_values import Json
from defenses.utils.parameters import canonical
from defenses.utils.reads import running

if TYPE_CHECKING:
    from defenses.data.dataset import Dataset
    from defenses.utils.identity import Provenance


@dataclass(frozen=True)
class SmoothingJob:
    """A defense and protocol, and the images to certify.

    Args:
        label: of the defense.
        defense: see `bench.tracks.smoothing.certify.certified`.
        data: a split of a data set.
        positions: of the images in the data, in their order.
        protocol: sigma, draws and confidence.
        seed: of the noise.
        batch: draws at once.
    """

    label: str
    defense: Defense
    data: Dataset
    positions: Sequence[int]
    protocol: CertificationProtocol
    seed: int
    batch: int

    @property
    def fingerprint(self) -> Json:
        """Fingerprint of the defense."""
        return dict(self.origin.fingerprint)

    @property
    def origin(self) -> Provenance:
        """Name, parameters and fingerprint that the defense was loaded by."""
        origin: Provenance = vars(self.defense)["provenance"]
        return origin

    def about(self) -> Json:
        """Return the facts that every certificate depends on."""
        return {
            "defense": self.fingerprint,
            "dataset": self.data.name,
            "revision": self.data.revision,
            "split": self.data.split,
            "seed": self.seed,
            **asdict(self.protocol),
        }

    def check(self, folder: Path) -> None:
        """Refuse a job that cannot be done, before any work.

        Raises:
            UserError: the seed is below 0, the defense does not begin with the noise or fails the checks of a model, or
                the folder's file is of other work.
        """
        check_whole(0, seed=self.seed)
        check_form(self.defense, self.protocol.sigma)
        check_model(self.defense, self.data.first(8), self.data.num_classes, self.label, probabilities=True)
        JsonlFile(file_of(folder, self.protocol.sigma), self.about()).check()

    def run(self, folder: Path, begin: Callable[[], None], *, progress: bool = True) -> None:
        """Certify the images that are not in the folder's file yet, a line each.

        Args:
            folder: see `file_of`.
            begin: called before anything is computed.
            progress: show a bar.

        Raises:
            UserError: the file is of other work, or cannot be written; or logits that are not finite.
        """
        with JsonlFile(file_of(folder, self.protocol.sigma), self.about()).open() as file, running():
            if note := drop_outdated(file, self.origin):
                hint(f"{self.label}: {note}")
            sources = Sources()
            left = [i for i in self.positions if str(i) not in file.entries]
            if left:
                begin()
            with tqdm(left, unit="image", disable=not progress, mininterval=1.0) as bar:  # closed before errors
                for i in bar:
                    line = self._certificate(i)
                    entries = sources.of_defense(self.origin)
                    file.add(str(i), line | ({"sources": entries} if entries else {}))

    def _certificate(self, i: int) -> dict[str, object]:
        """Return the line of an image."""
        start, index = time.perf_counter(), torch.tensor([i])
        x, y = self.data.images([i]), self.data.y[i]
        try:
            (radius,) = certified(
                self.defense, x.to(device_of(self.defense)), index, self.protocol, seed=self.seed, batch=self.batch
            )
        except UserError as error:
            where = f"{self.label} on image {i} of {self.data.name}"
            raise UserError(f"{where}: {error}; finished images are kept; mend the defense") from None
        seconds = round(time.perf_counter() - start, 3)
        counts = {**asdict(radius), "n0": self.protocol.n0, "n": self.protocol.n}
        return {"label": int(y), "sha": sha_of(x[0], y), **counts, "seconds": seconds}


def run_all(jobs: Sequence[SmoothingJob], folder: Path, *, indices: str, progress: bool = True) -> None:
    """Certify a defense under several sigmas, a file each, and write the manifest.

    Args:
        jobs: of one label and data set.
        folder: of the results.
        indices: name of the index list.
        progress: show bars.

    Raises:
        UserError: see `SmoothingJob.check` and `bench.store.manifest.record_run`; nothing was computed then.
    """
    for job in jobs:
        job.check(folder)
    first, device = jobs[0], str(device_of(jobs[0].defense))
    name = f"smooth-{first.data.name}-{first.label}"
    facts = {"dataset": first.data.name, "split": first.data.split, "indices": indices, "seed": first.seed}
    fingerprints = {f"{job.label}, sigma {canonical(job.protocol.sigma)}": job.fingerprint for job in jobs}
    with record_run(folder, name, fingerprints, device, **facts) as begin:
        for job in jobs:
            job.run(folder, begin, progress=progress)


def file_of(folder: Path, sigma: float) -> Path:
    """Return the file of the certificates of a sigma."""
    return folder / f"sigma-{canonical(sigma).replace('/', '_')}.jsonl"
