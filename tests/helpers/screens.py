"""Sizes of screens, in CSS pixels."""

DESK, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}
