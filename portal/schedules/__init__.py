"""Runs that begin by themselves: once, or by a cron expression in a time zone."""
