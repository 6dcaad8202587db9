"""The scheduling core: pure decisions over plain values. No clock, no event loop, no device, no network."""
