"""Where models come from: the Hub's listing, byte transfers, tar addresses, records of what is complete."""
