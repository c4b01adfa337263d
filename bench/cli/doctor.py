"""`purebench doctor`: check the installed libraries."""

from __future__ import annotations

import argparse
import dataclasses
import json

from bench.doctor.environment import Environment
from bench.doctor.examine import examine
from bench.doctor.imports import imports


def add(sub: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    sub.add_argument("--json", action="store_true", help="all findings as JSON")
    sub.add_argument("--deep", action="store_true", help="import every library too, each in a process of its own")


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    findings = examine(Environment.here())
    if arguments.deep:
        findings += imports()
    if arguments.json:
        print(json.dumps([dataclasses.asdict(f) for f in findings], indent=1))
    else:
        for f in findings:
            print(f"{f.status:<6}  {f.check}: {f.evidence}")
            if f.status != "ok":
                print(f"        breaks: {f.breaks}\n        remedy: {f.remedy}")
    return 2 if any(f.status == "broken" for f in findings) else 0
