"""The ways to a destination: object stores, HTTP PUT, a file in the workspace."""
