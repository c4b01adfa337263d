"""Mutation tests of core modules: `uv run --with mutmut==3.8.1 python tests/tools/mutate.py [MODULE ...]`.

mutmut says what to change; its own runner leaves out decorated functions, and `verdict` is one. So each mutant is
imported here in place of the module, in a fork that has torch at hand, and its tests run until the first failure.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import importlib.util
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType

import hypothesis
import libcst as cst
from mutmut.mutation.mutators import mutation_operators

ROOT = Path(__file__).parents[2]
LIMIT = 120  # seconds of a mutant; one that takes longer hangs, and counts as found
ARGUMENTS = ("-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-o", "addopts=--import-mode=importlib")
#: quick tests that call the module itself, as arguments of pytest
TESTS = {
    "bench/evaluation/verdict.py": [
        "tests/bench/evaluation/test_verdict.py",
        "-k=by_hand or streams or own_noise or known_draw or at_once or own_limit or calls_of or images_lie",
    ],
    "bench/spec/aggregation.py": [
        "tests/bench/spec/test_aggregation.py",
        "-k=needs_as_many or sequential_rule or from_the_manifest or fifteen or of_the_first_k",
    ],
    "bench/stats/proportions.py": ["tests/bench/stats/test_proportions.py"],
}
HEAVY = ("numpy", "pandas", "pyarrow.parquet", "pytest", "scipy.stats", "torch", "defenses")


def mutants(source: str) -> Iterator[str]:
    """Yield the text of the module with one change each.

    Annotations, docstrings and the words of errors are left as they are.
    """
    module = cst.parse_module(source)
    unchanged = ast.dump(ast.parse(source))
    for node in _nodes(module):
        for kind, operator in mutation_operators:
            for other in operator(node) if isinstance(node, kind) else ():
                text = module.deep_replace(node, other).code  # type: ignore[arg-type]
                with contextlib.suppress(SyntaxError):
                    if ast.dump(ast.parse(text)) != unchanged:
                        yield text


def _nodes(node: cst.CSTNode, raised: bool = False) -> Iterator[cst.CSTNode]:
    raised = raised or isinstance(node, cst.Raise)
    if isinstance(node, cst.Annotation | cst.Import | cst.ImportFrom) or (raised and isinstance(node, cst.BaseString)):
        return
    yield node
    for child in node.children:
        yield from _nodes(child, raised)


class _Mutant(SourceFileLoader):
    """The module of that name and path, with another text."""

    def __init__(self, name: str, path: str, text: str):
        super().__init__(name, path)
        self._text = text

    def get_code(self, fullname: str) -> CodeType:
        """Compile the other text; no bytecode is read or written."""
        return compile(self._text, self.path, "exec")

    def find_spec(self, name: str, path: object = None, target: object = None) -> object:
        """Find the module, and nothing else."""
        return importlib.util.spec_from_file_location(name, self.path, loader=self) if name == self.name else None


def tested(path: str, text: str) -> bool:
    """Return whether the tests of a module fail with another text of it."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(LIMIT)  # ends the process
        _quietly(lambda: _test(path, text))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0


def _quietly(call: Callable[[], int]) -> None:
    """Run something without a word, and leave with its exit code."""
    code = 1
    with contextlib.suppress(BaseException):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        code = call()
    os._exit(code)


def _test(path: str, text: str) -> int:
    import pytest

    name = path.removesuffix(".py").replace("/", ".")
    sys.meta_path.insert(0, _Mutant(name, str(ROOT / path), text))  # type: ignore[arg-type]
    return int(pytest.main([*ARGUMENTS, *TESTS[path]]))


def survivors(path: str) -> None:
    """Print what no test of a module finds, and the counts."""
    source = (ROOT / path).read_text(encoding="utf-8")
    begin = time.perf_counter()
    assert not tested(path, source), f"the tests of {path} fail without any change"
    print(f"{path}: {time.perf_counter() - begin:.1f} s for its tests", flush=True)
    texts, left = list(dict.fromkeys(mutants(source))), 0
    for text in texts:
        if not tested(path, text):
            left += 1
            lines = difflib.unified_diff(source.splitlines(), text.splitlines(), n=0, lineterm="")
            print("", *list(lines)[2:], sep="\n", flush=True)
    killed = len(texts) - left
    minutes = (time.perf_counter() - begin) / 60
    print(f"{path}: {len(texts)} mutants, {killed} killed ({killed / len(texts):.1%}), {minutes:.1f} min", flush=True)


if __name__ == "__main__":
    os.chdir(ROOT)
    for heavy in HEAVY:
        importlib.import_module(heavy)
    # The same examples for every mutant, and no limit of time that a busy machine may miss.
    hypothesis.settings.register_profile("mutants", deadline=None, database=None, derandomize=True)
    hypothesis.settings.load_profile("mutants")
    assert "bench" not in sys.modules, "a mutant would not be imported"
    for given in sys.argv[1:] or TESTS:
        survivors(given)
