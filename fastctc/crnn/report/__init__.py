"""Reports: pages and pictures of a data set, and of an evaluation."""
