"""Thousands of simulated releases: drawn traffic, the judge as arrays, and simpler rules beside it."""
