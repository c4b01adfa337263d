"""Statistics on numpy arrays: intervals, tests, power, bootstrap; no board, no file."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)  # public names: __init__.pyi
