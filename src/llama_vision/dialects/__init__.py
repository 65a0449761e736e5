"""Wire formats. A dialect turns a request into JSON and payloads into events; it knows no socket, clock or environment."""
