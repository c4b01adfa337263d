"""APGD: see pyautoattack."""

from pyautoattack.autopgd_base import *  # noqa: F403
