"""Find broken installations without importing the libraries."""
