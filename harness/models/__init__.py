"""The network: backbone, neck, placeholder tokens, sharing, heads."""
