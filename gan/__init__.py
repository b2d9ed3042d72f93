"""Generators: networks, objective, training with exact resume, sampling."""
