"""Functions that answer the items of checklists from a results folder."""
