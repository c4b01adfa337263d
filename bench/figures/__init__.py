"""Pictures of results folders, by name: what to read, what to draw, and what a picture shows in words."""
