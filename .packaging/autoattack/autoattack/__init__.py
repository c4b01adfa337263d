"""The module that robustbench imports."""
