"""Sources of data sets: a module for each kind."""
