"""Published protocols, rerun with the project's own pieces for users who have the data."""
