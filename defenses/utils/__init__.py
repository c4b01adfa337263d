"""Errors, files, names, parameters, paths, identity of modules and plug-in loading; no defense."""
