"""The pages of runs: a module for each kind."""
