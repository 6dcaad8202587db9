"""The code of a replica's process: its doors, its engine, its reports."""
