"""Decides.  No await, clock, I/O or log in here; `now` is an argument."""
