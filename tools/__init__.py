"""What a release is checked with: licences, known weaknesses, and the built packages themselves."""
