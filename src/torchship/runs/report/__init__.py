"""A run, a record or a reproduction as one HTML page, readable without scripts or a network."""
