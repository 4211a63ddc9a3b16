"""THE table of number formats, and what a scale and a zero point make of values."""
