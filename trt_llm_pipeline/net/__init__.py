"""HTTP for large files: streams that can be stopped and resumed, and when to ask again."""
