"""A registry over HTTP: requests, redirects, retries, tokens, uploads, and the client on them.

Source: the OCI distribution specification 1.1.
"""
