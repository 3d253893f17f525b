"""Property tests share one profile: the machine that runs them may be slow, and a failure must come back."""

from hypothesis import settings

settings.register_profile("core", deadline=None, derandomize=True, max_examples=60, database=None)
settings.load_profile("core")
