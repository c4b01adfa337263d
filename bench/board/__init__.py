"""Read boards from TOML, check them, and expand them into cells."""
