"""The projections of FAB: see pyautoattack."""

from pyautoattack.fab_projections import *
