"""How long runs are kept."""
