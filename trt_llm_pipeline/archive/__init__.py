"""Reading and writing archives: one pass, safe against what a step may have planted."""
