"""The wire formats. A dialect turns a request into JSON and bytes into events; it knows no socket, clock or environment."""
