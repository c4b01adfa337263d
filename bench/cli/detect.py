"""`purebench detect`: measure how well detectors separate adversarial images from clean ones."""

from __future__ import annotations

import argparse

from bench.cli.arguments import add_format, add_results
from bench.cli.terminal import fitted
from bench.report.plain import to_csv, to_markdown


def add(sub: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_results(sub)
    add_format(sub)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from bench.analysis.detection import detection
    from bench.cli.detection_table import detection_table

    frame = detection(arguments.results)
    if arguments.format == "csv":
        print(to_csv(frame), end="")
        return 0
    table = detection_table(frame)
    print(to_markdown(table) if arguments.format == "markdown" else fitted(table), end="")
    return 0
