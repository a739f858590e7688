"""What all tests need of the process they run in."""

import os
import signal
import threading

if threading.current_thread() is threading.main_thread():
    # a shell starts background jobs with SIGINT ignored, and Python then leaves it so: tests that
    # send it would see nothing
    signal.signal(signal.SIGINT, signal.default_int_handler)

# the width that pytest-xdist gives its workers: commands would take it for their user's
os.environ.pop("COLUMNS", None)
