"""Samples: read or drawn, prepared, kept, changed at random, and put into batches."""
