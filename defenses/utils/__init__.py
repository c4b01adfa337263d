"""What all packages of defenses use and that knows no defense."""
