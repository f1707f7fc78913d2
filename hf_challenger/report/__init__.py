"""Reports on a classifier: which cues it leans on over a data set, and what it does without them."""
