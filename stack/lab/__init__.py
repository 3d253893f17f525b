"""The virtual lab: several systemd hosts on this machine, each an overlay over an image in its own network namespace.

Its supervisor starts the hosts in systemd-nspawn and restarts them. One lab is up on a machine at a time, since it has
one network; what belongs to it is found by what the kernel shows, so that a kill -9 leaves nothing that `down` misses.
"""
