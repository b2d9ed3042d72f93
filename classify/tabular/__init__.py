"""Classifying tables of photometry, alone and beside images."""
