"""FAB: see pyautoattack."""

from pyautoattack.fab_base import *
