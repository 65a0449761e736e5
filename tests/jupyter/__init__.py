"""What notebooks and terminals are shown."""
