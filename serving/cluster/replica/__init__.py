"""What runs in a replica's process: its doors, its engines, and what it reports of itself."""
