"""The command `jaxret`: the face of `jaxret.index` for people and for scripts."""
