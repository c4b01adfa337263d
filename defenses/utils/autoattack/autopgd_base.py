"""APGD: see pyautoattack."""

from pyautoattack.autopgd_base import *
