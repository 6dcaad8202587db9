"""Who may ask what, how fast a request has to arrive, and how much may wait; for both wires."""
