"""What all tests need of the process they run in."""

import signal
import threading

if threading.current_thread() is threading.main_thread():
    # a shell starts background jobs with SIGINT ignored, and Python then leaves it so: tests that
    # send it would see nothing
    signal.signal(signal.SIGINT, signal.default_int_handler)
