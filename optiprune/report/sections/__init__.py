"""The sections of a report, one topic a file; each is None where a run has nothing on it."""
