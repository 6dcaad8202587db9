"""Open-loop load on anything that speaks the Open Inference Protocol; measures a black box and imports no server."""
