"""Scenarios, runs and everything that is kept of them."""
