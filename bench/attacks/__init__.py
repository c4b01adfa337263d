"""Attacks by name: of libraries, of purebench, of installed suites, of user functions and of files."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)  # public names: __init__.pyi
