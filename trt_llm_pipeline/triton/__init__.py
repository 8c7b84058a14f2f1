"""Whether cog-triton could serve an archive: one check a question."""
