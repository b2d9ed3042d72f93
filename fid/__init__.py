"""Distances between two image sets, memorisation, physical realism."""
