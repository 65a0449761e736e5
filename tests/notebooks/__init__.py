"""The notebooks, run as readers run them."""
