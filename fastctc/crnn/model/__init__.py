"""The network: its layers, the file it is kept in, its summary, and its exports."""
