"""Data structures on fastsync's raw locks."""
