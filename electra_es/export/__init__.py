"""Ways out of a model directory, and ways in."""
