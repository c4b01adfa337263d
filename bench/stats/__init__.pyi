from .paired import paired_difference as paired_difference
