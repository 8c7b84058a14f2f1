"""What only Cog's side needs: what a prediction returns, progress in its log, the worker's end."""
