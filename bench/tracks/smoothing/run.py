"""`purebench smooth`, without the command line: which defense, resumable certificates, and their table."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.store.jsonl import Ledger
from defenses.utils.errors import UserError, check_whole
from defenses.utils.names import is_plugin, is_zoo
from defenses.utils.parameters import as_number, canonical, decode
from defenses.zoo.cards import card

if TYPE_CHECKING:
    from bench.tracks.smoothing.certify import CertificationProtocol
    from defenses.core.defense import Defense
    from defenses.data.dataset import Dataset

_NOISE, _DENOISER = "gaussian-noise", "denoise-once"


def noisy(name: str, dataset: str, given: Mapping[str, Any], sigma: float | None) -> tuple[str, dict[str, Any], float]:
    """A defense with Gaussian noise as its first part; `denoise-once` brings that noise itself, and knows its time.

    Args:
        name: a registered defense, whose own noise filter in front is kept, or gets sigma; or a model of RobustBench's
            zoo.
        dataset: decides the card's defaults.
        given: parameters.
        sigma: None: the defense's own.

    Returns:
        (name, parameters, sigma) for `load_model`.

    Raises:
        UserError: sigma is neither given nor the defense's own, a time is given beside it, or the defense is a plug-in.
    """
    if is_plugin(name):
        behind = f"as a plain classifier it goes behind noise, gaussian-noise --set classifier={name}"
        raise UserError(
            f'"{name}" is a plug-in; {behind}; else certify it in Python, with bench.tracks.smoothing.certify.certified'
        )
    if is_zoo(name):
        name, given = _NOISE, {"classifier": {"name": name, **given} if given else name}
    params = dict(decode(card(name).merged(dataset, given)))
    if name == _DENOISER and "t_star" in given:
        raise UserError(f"the noise says the time of {name}; leave t_star out")
    if name == _NOISE or (name == _DENOISER and (sigma is not None or params["sigma"])):
        params["sigma"] = params["sigma"] if sigma is None else sigma
        return name, {**given, "sigma": params["sigma"]}, float(params["sigma"])
    filters = [{"name": f} if isinstance(f, str) else dict(f) for f in params.get("filters") or []]
    if filters and filters[0].get("name") == _NOISE:
        own = decode(card(_NOISE).merged(dataset, {k: v for k, v in filters.pop(0).items() if k != "name"}))["sigma"]
        sigma = own if sigma is None else sigma
    if sigma is None:
        raise UserError(f'"{name}" begins with no Gaussian noise of a known sigma; say how much: --sigma 1/4')
    return name, {**given, "filters": [{"name": _NOISE, "sigma": sigma}, *filters]}, float(sigma)


@dataclass(frozen=True)
class SmoothingJob:
    """One defense and protocol on some images.

    Args:
        label: of the defense.
        defense: see `bench.tracks.smoothing.certify.certified`.
        data: the split.
        positions: of the images, in their order.
        protocol: how.
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
    def fingerprint(self) -> dict[str, Any]:
        """Of the defense."""
        return dict(vars(self.defense)["provenance"].fingerprint)

    def about(self) -> dict[str, Any]:
        """What every certificate depends on."""
        return {
            "defense": self.fingerprint,
            "dataset": self.data.name,
            "revision": self.data.revision,
            "split": self.data.split,
            "seed": self.seed,
            **asdict(self.protocol),
        }

    def check(self, folder: Path) -> None:
        """Refuse what cannot be certified, before any work.

        Raises:
            UserError: the seed is below 0, the defense does not begin with the noise, or the folder's file is of other
                work.
        """
        from bench.tracks.smoothing.certify import check_form

        check_whole(0, seed=self.seed)
        check_form(self.defense, self.protocol.sigma)
        Ledger(file_of(folder, self.protocol.sigma), self.about()).check()

    def run(self, folder: Path, begin: Callable[[], None], *, progress: bool = True) -> None:
        """Certify the images that the folder's file does not have yet, a line each.

        Args:
            folder: see `file_of`.
            begin: is called before anything is computed.
            progress: show a bar.

        Raises:
            UserError: the file is of other work, or cannot be written; or logits that are not finite.
        """
        from tqdm import tqdm

        with Ledger(file_of(folder, self.protocol.sigma), self.about()).open() as ledger:
            left = [i for i in self.positions if str(i) not in ledger.entries]
            if left:
                begin()
            with tqdm(left, unit="image", disable=not progress, mininterval=1.0) as bar:  # ends before an error is told
                for i in bar:
                    ledger.add(str(i), self._certificate(i))

    def _certificate(self, i: int) -> dict[str, Any]:
        """What the file keeps of an image."""
        import torch

        from bench.tracks.smoothing.certify import certified

        begun, one = time.perf_counter(), torch.tensor([i])
        try:
            (found,) = certified(self.defense, self.data.x[one], one, self.protocol, seed=self.seed, batch=self.batch)
        except UserError as error:
            where = f"{self.label} on image {i} of {self.data.name}"
            raise UserError(f"{where}: {error}; finished images are kept; mend the defense") from None
        seconds = round(time.perf_counter() - begun, 3)
        kept = {**asdict(found), "n0": self.protocol.n0, "n": self.protocol.n}
        return {"label": int(self.data.y[i]), "sha": self.data.sha(i), **kept, "seconds": seconds}


def run_all(works: Sequence[SmoothingJob], folder: Path, *, indices: str, progress: bool = True) -> None:
    """Certify one defense under one noise or several, a file each, and write the manifest.

    Args:
        works: of one label and data set.
        folder: of the results.
        indices: name of the index list.
        progress: show bars.

    Raises:
        UserError: see `SmoothingJob.check` and `bench.store.manifest.journal`; nothing was computed then.
    """
    from bench.store.manifest import journal

    for work in works:
        work.check(folder)
    first, device = works[0], str(works[0].data.x.device)
    name = f"smooth-{first.data.name}-{first.label}"
    facts = {"dataset": first.data.name, "split": first.data.split, "indices": indices, "seed": first.seed}
    fingerprints = {f"{w.label}, sigma {canonical(w.protocol.sigma)}": w.fingerprint for w in works}
    with journal(folder, name, fingerprints, device, **facts) as begin:
        for work in works:
            work.run(folder, begin, progress=progress)


def file_of(folder: Path, sigma: float) -> Path:
    """Where the certificates of a sigma lie."""
    return folder / f"sigma-{canonical(sigma).replace('/', '_')}.jsonl"


def number(what: str, text: str) -> float:
    """A number from 0 on, as a fraction or decimal.

    Raises:
        UserError: it is none.
    """
    value = as_number(text)
    if value is None or value < 0:
        raise UserError(f'{what} "{text}" is no number from 0 on; write 0.25 or 1/4')
    return float(value)
