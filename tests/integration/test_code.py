"""Limits of the code itself: short files and functions, docstrings that say what a thing does."""

import ast
import re

import pytest
from boards import ROOT

FILES = [path for top in ("bench", "defenses") for path in sorted((ROOT / top).rglob("*.py"))]
EVASIVE = re.compile(r"(What|Whether|How|Where|Which|One|That|Those)\b|An? .* that\b")


def functions(tree):
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def code_lines(node, lines):
    """Lines of a function without blank lines, comments and its docstring."""
    first = node.body[0]
    documented = (
        isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    )
    skipped = range(first.lineno, first.end_lineno + 1) if documented else ()
    kept = [i for i in range(node.lineno, node.end_lineno + 1) if i not in skipped]
    return sum(bool(lines[i - 1].strip()) and not lines[i - 1].lstrip().startswith("#") for i in kept)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_short_and_its_docstrings_are_plain(path):
    text = path.read_text()
    tree, lines = ast.parse(text), text.splitlines()
    assert len(lines) <= 300
    assert {f.name: n for f in functions(tree) if (n := code_lines(f, lines)) > 40} == {}
    documented = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module)]
    openings = [text.partition("\n")[0] for node in documented if (text := ast.get_docstring(node))]
    assert [line for line in openings if EVASIVE.match(line)] == []
