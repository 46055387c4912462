"""One request and its answer over a connection.

Nothing here knows an endpoint, decodes a body or repeats a request.
"""
