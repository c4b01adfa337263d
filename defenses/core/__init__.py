"""Interface of defenses: noise, purifiers, detectors, and gradients through a purifier's steps."""
