"""The launcher's room: brings the whole lab up on one machine, runs load through it, takes it down.

It speaks to the portal by HTTP and by management commands only, and never imports it.
"""
