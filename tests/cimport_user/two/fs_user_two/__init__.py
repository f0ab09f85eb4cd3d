"""Code that locks words of another package."""
