"""Runs inside the interpreter of a step's script: stops it as soon as it has parsed its arguments."""
