"""Leaves: image files, command-line habits, seeding, logging, pictures, and the scripts round the network."""
