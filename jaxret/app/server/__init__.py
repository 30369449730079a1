"""`jaxret serve`: a page on this machine that searches an index. See `jaxret.app.schema`."""
