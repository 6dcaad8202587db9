"""How many replicas a model should have. Pure: readings and the time come in, a target with its cause leaves."""
