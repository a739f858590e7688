"""Which units leave a model, and how wide its layers stay."""
