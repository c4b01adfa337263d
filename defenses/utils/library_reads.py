"""Hooks on the functions of libraries that open files without Python: torch, safetensors, pyarrow, torchvision."""

from __future__ import annotations

import sys

from defenses.utils.file_reads import noting

# By module, its functions, and methods of its classes as "Class.method".
_FUNCTIONS = {
    "torch": ("from_file", "UntypedStorage.from_file"),
    "torch.jit": ("load",),
    "safetensors": ("safe_open",),
    "safetensors.torch": ("safe_open",),
    "safetensors.numpy": ("safe_open",),
    "torchvision.io": ("read_file", "read_image"),
    "torchvision.io.image": ("read_file",),
    "pyarrow": ("memory_map", "OSFile", "input_stream"),
    "pyarrow.parquet": (
        "read_table",
        "read_schema",
        "read_metadata",
        "ParquetFile.__init__",
        "ParquetDataset.__init__",
    ),
    "pyarrow.csv": ("read_csv", "open_csv"),
    "pyarrow.json": ("read_json", "open_json"),
    "pyarrow.feather": ("read_table", "read_feather"),
    "pyarrow.dataset": ("dataset",),
    "pyarrow.ipc": ("open_file", "open_stream"),
    "pyarrow.orc": ("read_table",),
}
_USERS = {"pandas": ("pyarrow.parquet",)}  # libraries that import others when they read
_hooked: set[str] = set()


def hook_libraries() -> None:
    """Take note of files that imported libraries open themselves, from now on; a second call hooks only new ones."""
    for library, others in _USERS.items():
        if library in sys.modules and library not in _hooked:
            _hooked.add(library)
            for other in others:
                __import__(other)
    for name in [n for n in _FUNCTIONS if n not in _hooked and n in sys.modules]:
        module = sys.modules[name]
        if getattr(getattr(module, "__spec__", None), "_initializing", False):
            continue
        _hooked.add(name)
        for function in _FUNCTIONS[name]:
            _hook(module, function)


def _hook(module: object, name: str) -> None:
    owner, _, attribute = name.rpartition(".")
    target = getattr(module, owner, None) if owner else module
    function = getattr(target, attribute, None)
    if function is not None:
        setattr(target, attribute, noting(function))
