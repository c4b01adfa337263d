"""Pictures of results: a function each, from a frame to matplotlib's axes."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)  # matplotlib is imported when it is needed
