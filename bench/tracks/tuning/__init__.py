"""Choice of deployment parameters on validation images."""
