"""A report: one document, written in several formats."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.report.crate import Described, crate
from bench.report.document.html import to_html_document
from bench.report.document.json_form import as_json
from bench.report.document.markdown import to_markdown_document
from bench.report.document.model import Document
from bench.site.records import records
from bench.store.folder import write_atomic
from defenses.utils.errors import UserError
from defenses.utils.text import clean

if TYPE_CHECKING:
    from bench.reproducibility.answers.answer import Answer
    from bench.reproducibility.checklist import Item
    from bench.reproducibility.subject import Subject

FORMATS = ("md", "html", "pdf", "json")
SCHEMA = 1


@dataclass(frozen=True, eq=False)
class Report:
    """A reproducibility report.

    Args:
        document: its sections.
        subject: the results folder.
        answered: answers of each checklist by its name.
    """

    document: Document
    subject: Subject
    answered: Mapping[str, Sequence[tuple[Item, Answer]]]

    def markdown(self) -> str:
        """Return the report as GitHub's Markdown."""
        return to_markdown_document(self.document)

    def html(self) -> str:
        """Return the report as one page of HTML, with its pictures, that loads nothing."""
        return to_html_document(self.document)

    def pdf(self) -> bytes:
        """Return the report as PDF.

        Raises:
            UserError: Typst is not installed.
        """
        from bench.report.document.pdf import to_pdf

        return to_pdf(self.document)

    def json(self) -> str:
        """Return the report as JSON: its texts, the answers, and the leaderboard at full precision."""
        labels = {row.label for row in self.subject.rows}
        leaders = [] if self.subject.leaders is None else records(self.subject.leaders)
        lists = {name: [_answer(*pair) for pair in pairs] for name, pairs in self.answered.items()}
        content: dict[str, Any] = {"schema": SCHEMA, **as_json(self.document), "checklists": lists}
        content["leaderboard"] = [row for row in leaders if row["defense"] in labels]
        return json.dumps(content, indent=1, allow_nan=False) + "\n"

    def write(self, form: str) -> bytes:
        """Return the report as a file.

        Args:
            form: one of `FORMATS`.

        Raises:
            UserError: Typst is not installed.
        """
        if form == "pdf":
            return self.pdf()
        text = {"md": self.markdown, "html": self.html, "json": self.json}[form]()
        return text.encode("utf-8", "replace")

    def crate(self, folder: str | Path, files: Mapping[str, bytes] | None = None) -> str:
        """Return the RO-Crate metadata of the results, for the file `ro-crate-metadata.json` of a folder.

        Args:
            folder: of the metadata. Results below it are files of the crate, others are told by name and checksum.
            files: further files of the crate by path, as the report.
        """
        source = self.subject.folder.resolve()
        inside = None
        if source.is_relative_to(Path(folder).resolve()):
            path = source.relative_to(Path(folder).resolve()).as_posix()
            inside = "" if path == "." else f"{path}/"
        described = Described(self.subject.folder, self.subject.source.name, inside)
        return crate([described], files or {}, name=self.subject.title, about=self.document.lead)

    def save(self, path: str | Path) -> Path:
        """Write the report as Markdown, HTML, PDF or JSON, by the ending of its path; the file is whole or not there.

        Args:
            path: of the file, ending in .md, .html, .pdf or .json; its folder must exist.

        Returns:
            The path.

        Raises:
            UserError: another ending, or a folder that is missing or cannot be written to.
        """
        file = checked(Path(path))
        write_atomic(file, self.write(file.suffix[1:].lower()))
        return file


def checked(path: Path) -> Path:
    """Return the path of a report, whose ending is known and whose folder exists.

    Raises:
        UserError: it is not so.
    """
    if path.suffix[1:].lower() not in FORMATS:
        raise UserError(f"{path} is of no known format; end its name in .md, .html, .pdf or .json")
    if not path.parent.is_dir():
        raise UserError(f"there is no folder {path.parent}; make it, or choose another --out")
    return path


def _answer(item: Item, answer: Answer) -> dict[str, str]:
    about = {"id": item.id, "group": item.group, "text": item.text}
    return about | {"answer": answer.state, "evidence": clean(answer.evidence), "section": answer.section}
