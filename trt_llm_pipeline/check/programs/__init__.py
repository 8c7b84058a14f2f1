"""Programs for the toolchain's interpreter, each a file of its own: nothing of the service can be imported
there.

Each takes two files: a request and where to put its report, both JSON.
"""
