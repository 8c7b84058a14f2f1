"""What runs inside a script's interpreter to ask its own parser, and the words for what it says."""
