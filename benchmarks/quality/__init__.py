"""How good pruned models are: methods side by side on the same models, data and budgets."""
