"""Backends: each speaks one arm's language, and reaches the world only through `send`."""
