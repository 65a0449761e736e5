"""What is and what is not a tool call in a text, with the source of every example."""
