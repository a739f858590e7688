"""Channels, neurons and heads: their norms, their order, and who decides which leave."""
