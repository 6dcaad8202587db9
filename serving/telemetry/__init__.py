"""What is told of serving while it goes on. Knows the core's values; knows no engine, no wire and no Ray."""
