"""What an image set is: opening, packing, splitting, fetching and simulating sets."""
