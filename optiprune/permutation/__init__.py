"""Channels of a dense model in an order of which an N:M pattern keeps more."""
