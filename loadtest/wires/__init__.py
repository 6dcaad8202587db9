"""The ways a shot can travel; one file each."""
