"""The experiment behind augment-and-eval."""
