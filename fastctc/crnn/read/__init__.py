"""Reading: from images to texts, and how right they are."""
