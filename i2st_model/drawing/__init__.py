"""Random draws of episodes: what is drawn depends on a seed and a number alone."""
