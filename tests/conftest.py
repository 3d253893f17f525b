"""What holds for all tests."""

import signal

# A shell that starts the tests in the background has them ignore SIGINT, and with them all that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
