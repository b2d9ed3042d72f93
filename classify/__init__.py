"""Classifiers, their training, metrics and uncertainty, and the experiment."""
