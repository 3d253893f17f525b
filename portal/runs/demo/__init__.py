"""A made-up history: loads that nobody ran, counted, judged and kept by the functions that do so for real ones."""
