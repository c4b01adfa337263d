"""The interface: noise, purifier, defense, detector, and gradients through a purifier's steps."""
