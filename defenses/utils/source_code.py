"""Source code without what changes nothing: comments, docstrings, and classes and functions that nothing names."""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

_DYNAMIC = "*"  # in place of a name: code that reaches what it does not name, so that all code counts
_BUILTINS = frozenset(
    ["globals", "locals", "vars", "dir", "getattr", "eval", "exec", "compile", "__import__", "pickle"]
)
_ATTRIBUTES = frozenset(
    [
        *("__dict__", "__subclasses__", "__init_subclass__", "__doc__", "import_module", "reload", "getmembers"),
        *("attrgetter", "methodcaller", "locate", "spec_from_file_location", "run_path", "run_module", "load_module"),
        *("exec_module", "find_class", "walk_packages", "iter_modules", "getsource", "weights_only"),
        *("joblib", "dill", "cloudpickle"),
    ]
)
# Decorators and functions that have no effect but on what they decorate or return.
_HARMLESS = frozenset(
    [
        *("staticmethod", "classmethod", "property", "dataclass", "field", "no_grad", "inference_mode", "enable_grad"),
        *("lru_cache", "cache", "cached_property", "wraps", "contextmanager", "abstractmethod", "overload", "override"),
        *("setter", "getter", "deleter", "total_ordering", "final", "partial"),
    ]
)


@dataclass
class _File:
    """A file of code.

    Args:
        tree: its syntax; None: it is no Python.
        rest: statements that run when it is imported, which always count.
        optional: classes and functions by name, which count where something names them.
    """

    tree: ast.Module | None
    rest: list[ast.stmt] = field(default_factory=list)
    optional: dict[str, list[ast.stmt]] = field(default_factory=dict)


def hashes(sources: Mapping[str, bytes], wanted: Iterable[str]) -> dict[str, str]:
    """Return a hash of each file of a plug-in: of the statements that are reached from some names.

    Args:
        sources: content of the files, by any name.
        wanted: names of the plug-in's class or function; none: all code counts.
    """
    return dict(_hashes(tuple(sources.items()), frozenset(wanted)))


@functools.lru_cache(maxsize=256)  # the cells of a board ask about the same files
def _hashes(sources: tuple[tuple[str, bytes], ...], wanted: frozenset[str]) -> dict[str, str]:
    contents = dict(sources)
    files = {name: _parsed(content) for name, content in sources}
    names = _reached(files.values(), set(wanted))
    found = {}
    for name, file in files.items():
        if file.tree is None:
            found[name] = hashlib.sha256(contents[name]).hexdigest()
            continue
        apart = {
            s for name, defined in file.optional.items() if names is not None and name not in names for s in defined
        }
        body = [s for s in file.tree.body if s not in apart]
        found[name] = hashlib.sha256(_text(ast.Module(body, [])).encode(errors="surrogatepass")).hexdigest()
    return found


def whole_hash(content: bytes) -> str:
    """Return the hash of a file of code, all of which counts but comments and docstrings."""
    return hashes({"": content}, ())[""]


def plain_text(source: str) -> str:
    """Return the text of a class or function without comments and docstrings; text that is no Python as it is."""
    import textwrap

    try:
        return _text(ast.parse(textwrap.dedent(source)))
    except (SyntaxError, ValueError, RecursionError):
        return source


@functools.lru_cache(maxsize=256)
def imported_names(content: bytes) -> list[tuple[int, str, tuple[str, ...]]]:
    """Return (level, module, names) of every import statement of a file, as `from ..module import names`."""
    tree = _parsed(content).tree
    names: list[tuple[int, str, tuple[str, ...]]] = []
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.Import):
            names += [(0, alias.name, ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names.append((node.level, node.module or "", tuple(alias.name for alias in node.names)))
    return names


def _parsed(content: bytes) -> _File:
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError, RecursionError):
        return _File(None)
    file = _File(tree)
    for statement in tree.body:
        name = getattr(statement, "name", "__")  # of a class or function; `__getattr__` of a module always counts
        if not name.startswith("__") and _is_inert(statement):
            file.optional.setdefault(name, []).append(statement)
        else:
            file.rest.append(statement)
    return file


def _reached(files: Iterable[_File], wanted: set[str]) -> set[str] | None:
    """Return all names in the code that is reached; None if that is all code."""
    if not wanted:
        return None
    listed = list(files)
    names = wanted.union(*(_names(statement) for file in listed for statement in file.rest))
    waiting = [*names]
    while waiting:
        name = waiting.pop()
        new = set().union(*(_names(s) for file in listed for s in file.optional.get(name, ()))) - names
        names |= new
        waiting += new
    return None if _DYNAMIC in names else names


def _names(node: ast.AST) -> set[str]:
    """Return all names in some code, and `_DYNAMIC` where it reaches others."""
    names: set[str] = set()
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name):
            names.add(_DYNAMIC if inner.id in _BUILTINS else inner.id)
        elif isinstance(inner, ast.Attribute):
            names |= {inner.attr, _DYNAMIC} if ast.unparse(inner) == "sys.modules" else {inner.attr}
        elif isinstance(inner, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(inner.name)
        elif isinstance(inner, ast.alias):
            names |= {*inner.name.split("."), inner.asname or ""}
        elif isinstance(inner, ast.keyword) and inner.arg == "weights_only":
            names |= {inner.arg} if ast.unparse(inner.value) == "False" else set()
        elif isinstance(inner, ast.keyword) and inner.arg == "allow_pickle":
            names |= {_DYNAMIC} if ast.unparse(inner.value) != "False" else set()
        elif isinstance(inner, ast.Constant) and isinstance(inner.value, str) and inner.value.isidentifier():
            names.add(inner.value)  # of __all__, an annotation, or a table of classes
    return names | ({_DYNAMIC} if names & _ATTRIBUTES else set())


def _is_inert(node: ast.stmt) -> bool:
    """Return True if the definition of a class or function has no effect but its name."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        defaults = [d for d in (*node.args.defaults, *node.args.kw_defaults) if d is not None]
        return all(map(_is_known, node.decorator_list)) and all(map(_is_harmless, defaults))
    if isinstance(node, ast.ClassDef):
        simple = not node.keywords and all(map(_is_known, node.decorator_list)) and all(map(_is_harmless, node.bases))
        return simple and all(map(_is_inert, node.body))
    if isinstance(node, ast.Assign | ast.AnnAssign | ast.Expr):
        return node.value is None or _is_harmless(node.value)
    return isinstance(node, ast.Pass)


def _is_harmless(expression: ast.expr) -> bool:
    """Return True if an expression calls nothing but known decorators and the like."""
    calls = [node.func for node in ast.walk(expression) if isinstance(node, ast.Call)]
    names = {f.id if isinstance(f, ast.Name) else f.attr if isinstance(f, ast.Attribute) else "" for f in calls}
    return names <= _HARMLESS


def _is_known(decorator: ast.expr) -> bool:
    name = decorator.func if isinstance(decorator, ast.Call) else decorator
    return (name.id if isinstance(name, ast.Name) else getattr(name, "attr", "")) in _HARMLESS


def _text(tree: ast.Module) -> str:
    """Return code as Python writes it, without docstrings."""
    bodies: dict[ast.AST, list[ast.stmt]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and type(first.value.value) is str:
                bodies[node] = node.body
                node.body = node.body[1:] or [ast.Pass()]
    text = ast.unparse(ast.fix_missing_locations(tree))
    for node, body in bodies.items():
        node.body = body  # type: ignore[attr-defined]
    return text
