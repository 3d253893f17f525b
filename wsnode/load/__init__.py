"""Generates load on an open schedule and measures what clients see."""
