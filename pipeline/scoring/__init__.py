"""How well a segmenter's actor masks agree with true person masks, beside controls."""
